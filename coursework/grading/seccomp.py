"""A filter for the kernel: threads yes, new processes no.

A limit on processes counts by user, and root is exempt from it; so a fork bomb is stopped here, at the system call. The
filter is a classic BPF program in the form that `bwrap --seccomp` reads (`struct sock_filter`, see seccomp(2)).
"""

import errno
import platform
import struct

CLONE_THREAD = 0x10000
LOAD, EQUAL, ABOVE, BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, ERROR = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16                # offsets in struct seccomp_data
SYSTEMS = {                                                    # audit number, fork-like calls, clone, clone3
    "x86_64": (0xC000003E, (57, 58), 56, 435),
    "aarch64": (0xC00000B7, (), 220, 435),
}


def no_new_processes(machine: str = "") -> bytes | None:
    """The program for this kind of machine, or None where its system calls are not known here."""
    if (machine or platform.machine()) not in SYSTEMS:
        return None
    audit, forks, clone, clone3 = SYSTEMS[machine or platform.machine()]
    steps = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, audit), (RETURN, 0, 0, ERROR | errno.EPERM), (LOAD, 0, 0, NUMBER)]
    steps += [(ABOVE, 0, 1, 0x40000000), (RETURN, 0, 0, ERROR | errno.EPERM)]     # the other ABI of x86-64
    for number in forks:
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ERROR | errno.EPERM)]
    steps += [(EQUAL, 0, 1, clone3), (RETURN, 0, 0, ERROR | errno.ENOSYS)]        # its flags are out of sight: C libraries fall back
    steps += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, FIRST_ARGUMENT), (BITS, 1, 0, CLONE_THREAD),
              (RETURN, 0, 0, ERROR | errno.EPERM), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
