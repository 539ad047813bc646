"""Time and memory, honestly: CPU time, one thread, everything in one process and interleaved, compared by ratios.

A time alone says little: clocks change and other programs take the caches. What is compared is therefore
measured in turns within one process, many rounds, and reported as the median over rounds of the *ratio within
a round*, with quartiles. CPU time (`time.process_time`) leaves out the waiting while another program runs.
"""

from attnlib.measure.memory import allocated_bytes, peak_memory
from attnlib.measure.records import device, flops, record
from attnlib.measure.timing import (
    Slope,
    Spread,
    Times,
    cpu_times,
    matmul_rate,
    medians,
    multiples,
    ratios,
    slope,
)

__all__ = ["Slope", "Spread", "Times", "allocated_bytes", "cpu_times", "device", "flops", "matmul_rate", "medians",
           "multiples", "peak_memory", "ratios", "record", "slope"]
