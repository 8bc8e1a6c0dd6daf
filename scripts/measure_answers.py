"""How many forms of answers are judged rightly, by this package and by math-verify on the whole text.

    python scripts/measure_answers.py

The forms are those of ``tests/evaluation/answer_forms.jsonl``: a model's text, a right answer, and whether the text
gives it, decided by hand.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ost_hf.evaluation.answers import answers_match, extract_answer

FORMS = Path(__file__).parents[1] / "tests" / "evaluation" / "answer_forms.jsonl"

Form = dict[str, Any]


def main() -> None:
    """Prints the counts by kind, and those of right answers counted wrong and of wrong ones counted right."""
    forms = [json.loads(line) for line in FORMS.read_text(encoding="utf-8").splitlines()]
    judges = {"ost-hf": judged, "math-verify on the whole text": judged_by_math_verify}
    verdicts = {name: [judge(form) for form in forms] for name, judge in judges.items()}
    kinds = list(dict.fromkeys(form["kind"] for form in forms))
    print("| kind | forms | " + " | ".join(judges) + " |\n|---|---|" + "---|" * len(judges))
    for kind in kinds:
        rows = [row for row, form in enumerate(forms) if form["kind"] == kind]
        right = [sum(given[row] == forms[row]["right"] for row in rows) for given in verdicts.values()]
        print(f"| {kind} | {len(rows)} | " + " | ".join(map(str, right)) + " |")
    print("\n| judge | judged rightly | right answers counted wrong | wrong answers counted right |\n|---|---|---|---|")
    for name, given in verdicts.items():
        missed = sum(form["right"] and not verdict for form, verdict in zip(forms, given, strict=True))
        excused = sum(verdict and not form["right"] for form, verdict in zip(forms, given, strict=True))
        print(f"| {name} | {len(forms) - missed - excused} of {len(forms)} | {missed} | {excused} |")


def judged(form: Form) -> bool:
    """This package's verdict."""
    return answers_match(extract_answer(form["prediction"]), extract_answer(form["reference"]))


def judged_by_math_verify(form: Form) -> bool:
    """What math-verify says of the whole text; the reference is read plainly and as a formula; the better counts."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    guess, reference = parse(form["prediction"]), form["reference"]
    verdicts = {bool(verify(parse(gold), guess)) for gold in (reference, f"${reference}$")}
    return bool(form["right"]) if form["right"] in verdicts else not form["right"]


if __name__ == "__main__":
    main()
