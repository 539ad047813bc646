"""One page of feedback for one student: plain HTML, no scripts, everything a student wrote escaped."""

from html import escape

from coursework.assign import Assignment

WORDS = {"right": "right", "wrong": "not right", "missing": "missing", "not attempted": "not attempted", "time": "took too long",
         "crash": "crashed", "output": "too much output", "carried": "right by itself", "refused": "not accepted"}
STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1.1rem; margin: 1.6rem 0 .2rem; } code { font-family: ui-monospace, monospace; }
.points { float: right; font-variant-numeric: tabular-nums; } p { margin: .3rem 0; }
section { border-left: .3rem solid #9a9a9a; padding-left: .8rem; margin-top: 1.4rem; } section h2 { margin-top: 0; }
.right { border-color: #2b8a3e; } .wrong { border-color: #c92a2a; } .part { border-color: #b8860b; }
.right h2::before { content: "✓ "; } .wrong h2::before { content: "✗ "; } .part h2::before { content: "◐ "; }
.none h2::before { content: "○ "; }
"""


def page(assignment: Assignment, result: dict) -> str:
    """The feedback page for one result of `questions.grade`."""
    body = [f"<h1>{escape(assignment.title)}</h1>", f"<p>Student: {escape(result['student'])}</p>"]
    if result["points"] is None:
        body.append(f"<p><strong>This submission could not be read:</strong> {escape(result['problem'])}. "
                    "It has no points yet; hand in a file that opens, or ask.</p>")
    else:
        body.append(f"<p><strong>{result['points']:g} of {result['of']} points</strong></p>")
        if result["problem"]:
            body.append(f"<p>{escape(result['problem'].capitalize())}.</p>")
    for cell, why in result["broken"].items():
        body.append(f"<p>Code cell {escape(str(cell))} could not be read and was left out: {escape(why)}.</p>")
    titles = {q.name: q.base.title for q in assignment.questions}
    for mark in result["marks"]:
        kind = {"right": "right", "carried": "right", "missing": "none", "not attempted": "none"}.get(mark["status"], "part" if mark["points"] else "wrong")
        body.append(f'<section class="{kind}"><h2>{escape(titles.get(mark["question"], ""))} <code>{escape(mark["question"])}</code> '
                    f'<span class="points">{mark["points"]:g} / {mark["of"]}</span></h2>'
                    f"<p>{WORDS[mark['status']].capitalize()}. {escape(mark['hint'])}</p></section>")
    return ("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(assignment.title)}</title><style>{STYLE}</style></head>\n<body>\n"
            + "\n".join(body) + "\n</body></html>\n")
