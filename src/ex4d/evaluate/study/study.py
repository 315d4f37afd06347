"""User study kit: a static page of blinded side-by-side pairs, and the analysis of the answers it saves.

The page is one folder that opens from disk or any web server. Sides and order are drawn anew for every participant from the name
they type; the file of answers holds only pair numbers and sides, and `key.json`, which stays with the organiser, says which was which.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.errors import InputError
from ex4d.evaluate.metrics.statistics import proportion, summarize
from ex4d.evaluate.protocols.loaders import find_outputs
from ex4d.system.atomic import ensure_dir, written_whole

QUESTIONS = (
    "Which video looks better overall?",
    "Which keeps the scene of the input better?",
    "Which follows the camera better?",
)

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,"><title>Video comparison</title><style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; text-align: center }
.row { display: flex; gap: 1em; justify-content: center } .row figure { flex: 1; margin: 0 } video { width: 100% }
button { font: inherit; padding: .5em 1.5em; margin: .3em } input { font: inherit }
</style></head><body><h1>Which video is better?</h1>
<div id="start"><p>Your name or number: <input id="who"> <button id="go">Start</button></p></div>
<div id="study" hidden><p id="progress"></p><div id="source"></div><div class="row">
<figure><video id="left" controls loop muted autoplay playsinline></video><figcaption>left</figcaption></figure>
<figure><video id="right" controls loop muted autoplay playsinline></video><figcaption>right</figcaption></figure></div>
<p id="question"></p><button data-side="left">left</button><button data-side="tie">no difference</button><button data-side="right">right</button></div>
<div id="end" hidden><p>Thank you. Please save this file and send it back.</p><a id="save">save the answers</a></div>
<script id="pairs" type="application/json">@PAIRS@</script><script>
const data = JSON.parse(document.getElementById("pairs").textContent), at = id => document.getElementById(id);
function seeded(text) { let h = 2166136261; for (const c of text) h = Math.imul(h ^ c.codePointAt(0), 16777619);
  return () => { h += 0x6D2B79F5; let t = Math.imul(h ^ h >>> 15, 1 | h); t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t; return ((t ^ t >>> 14) >>> 0) / 4294967296; }; }
let trials = [], index = 0, asked = 0, answers = [], started = 0;
function show() { const t = trials[index]; if (!t) return finish();
  at("progress").textContent = `${index + 1} of ${trials.length}`; at("question").textContent = data.questions[asked];
  if (asked === 0) { at("source").innerHTML = ""; if (t.pair.source) { const v = document.createElement("video");
      Object.assign(v, {src: t.pair.source, controls: true, loop: true, muted: true, autoplay: true}); v.style.maxWidth = "40%"; at("source").append("input ", v); }
    at("left").src = t.swap ? t.pair.b : t.pair.a; at("right").src = t.swap ? t.pair.a : t.pair.b; } started = performance.now(); }
function finish() { at("study").hidden = true; at("end").hidden = false;
  const text = JSON.stringify({study: data.study, participant: at("who").value, answers}, null, 1);
  at("save").href = URL.createObjectURL(new Blob([text], {type: "application/json"})); at("save").download = "answers_" + at("who").value.replace(/\\W+/g, "_") + ".json"; }
at("go").onclick = () => { if (!at("who").value.trim()) return; const random = seeded(data.study + at("who").value);
  trials = data.pairs.map(pair => ({pair, swap: random() < 0.5}));
  for (let i = trials.length - 1; i > 0; i--) { const j = Math.floor(random() * (i + 1)); [trials[i], trials[j]] = [trials[j], trials[i]]; }
  at("start").hidden = true; at("study").hidden = false; show(); };
for (const b of document.querySelectorAll("[data-side]")) b.onclick = () => { const t = trials[index], side = b.dataset.side;
  answers.push({pair: t.pair.id, question: asked, choice: side === "tie" ? "tie" : (side === "left") !== t.swap ? "a" : "b", swapped: t.swap, ms: Math.round(performance.now() - started)});
  if (++asked >= data.questions.length) { asked = 0; index++; } show(); };
</script></body></html>
"""


def make_study(
    folders: Sequence[Path],
    out: Path,
    sources: Path | None = None,
    tool: str = "auto",
    questions: Sequence[str] = QUESTIONS,
    seed: int = 0,
    max_pairs: int | None = None,
) -> int:
    """Write index.html, the clips under blind names, and key.json; returns how many pairs there are.

    Args:
        folders: Outputs of two or more systems; all pairs of systems are compared on the clips they share.
        out: The study's folder.
        sources: Folder of input clips to show above (CLIP.mp4), or None.
        tool: Loader of `loaders.py`.
        questions: Asked for every pair.
        seed: Of the blind names, of which system is a, and of which pairs are kept.
        max_pairs: At most this many, drawn at random.
    """
    if len(folders) < 2:
        raise InputError(
            f"{len(folders)} folder", "two or more systems to compare", "ex4d evaluate user-study A B --out DIR"
        )
    outputs = {f.resolve().name: {o.item: o for o in find_outputs(f, tool)[1] if o.path.is_file()} for f in folders}
    if len(outputs) < len(folders):
        raise InputError("two folders of one name", "distinct names: they name the systems")
    rng = np.random.Generator(np.random.PCG64(seed))
    names = list(outputs)
    pairs = [
        (item, *(pair if rng.uniform() < 0.5 else pair[::-1]))
        for i, first in enumerate(names)
        for second in names[i + 1 :]
        for pair in [(first, second)]
        for item in sorted(outputs[first].keys() & outputs[second].keys())
    ]
    if not pairs:
        raise InputError("systems that share no clip", "outputs for the same clips", "check the names, or --tool")
    if max_pairs is not None and len(pairs) > max_pairs:
        pairs = [pairs[k] for k in sorted(rng.choice(len(pairs), max_pairs, replace=False))]
    clips = ensure_dir(ensure_dir(out) / "clips")
    shown, key, blind = [], {}, {}

    def copied(path: Path) -> str:
        if path not in blind:
            blind[path] = f"{rng.integers(16**10):010x}{path.suffix}"
            shutil.copyfile(path, clips / blind[path])
        return f"clips/{blind[path]}"

    for number, (item, a, b) in enumerate(pairs):
        entry = {"id": number, "a": copied(outputs[a][item].path), "b": copied(outputs[b][item].path)}
        source = _source(sources, outputs[a][item].clip)
        if source is not None:
            entry["source"] = copied(source)
        shown.append(entry)
        key[str(number)] = {"item": item, "a": a, "b": b}
    study = f"{rng.integers(16**8):08x}"
    data = json.dumps({"study": study, "questions": list(questions), "pairs": shown}).replace("</", "<\\/")
    with written_whole(out / "index.html") as temporary:
        temporary.write_text(PAGE.replace("@PAIRS@", data), encoding="utf-8")
    with written_whole(out / "key.json") as temporary:
        temporary.write_text(
            json.dumps({"study": study, "questions": list(questions), "pairs": key}, indent=1), encoding="utf-8"
        )
    return len(pairs)


def _source(sources: Path | None, clip: str) -> Path | None:
    if sources is None:
        return None
    found = [p for p in (sources / f"{clip}.mp4", sources / clip / "input.mp4") if p.is_file()]
    return found[0] if found else None


def analyse_study(key_file: Path, answers: Sequence[Path]) -> dict[str, Any]:
    """Preference of every system over every other, by question.

    Ties count half to each side. The share's interval is Wilson's over all answers, and a second one resamples participants,
    because answers of one person hang together; the wider is the honest one.
    """
    key = _json(key_file, "key.json of the study")
    if not answers:
        raise InputError("no files of answers", "the JSON files that participants saved")
    votes: dict[tuple[int, str, str], list[tuple[str, float]]] = {}
    left = total = 0
    for path in answers:
        data = _json(path, "a file of answers")
        if data.get("study") != key["study"]:
            raise InputError(
                f"{path} belongs to study {data.get('study')}", f"study {key['study']}", "keep studies apart"
            )
        for answer in data["answers"]:
            pair = key["pairs"].get(str(answer["pair"]))
            if pair is None or answer["choice"] not in ("a", "b", "tie"):
                raise InputError(f"{path} has answer {answer}", "pairs and choices of this study")
            value = {"a": 1.0, "b": 0.0, "tie": 0.5}[answer["choice"]]
            first, second = sorted((pair["a"], pair["b"]))
            votes.setdefault((answer["question"], first, second), []).append(
                (str(data["participant"]), value if first == pair["a"] else 1 - value)
            )
            if answer["choice"] != "tie":
                left += (answer["choice"] == "a") != bool(answer.get("swapped"))
                total += 1
    rows = []
    for (question, first, second), values in sorted(votes.items()):
        wins = sum(v for _, v in values)
        wilson, people = proportion(round(wins), len(values)), summarize([v for _, v in values], [p for p, _ in values])
        rows.append(
            {
                "question": key["questions"][question],
                "system": first,
                "over": second,
                "preferred": wins / len(values),
                "low": min(wilson.low, people.low),
                "high": max(wilson.high, people.high),
                "answers": len(values),
                "participants": len({p for p, _ in values}),
            }
        )
    return {"study": key["study"], "preferences": rows, "left_share": left / total if total else None}


def study_table(result: dict[str, Any]) -> str:
    """Markdown of an analysis."""
    lines = [
        "| question | system | preferred over | share (95 % interval) | answers | participants |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['question']} | {r['system']} | {r['over']} | {r['preferred']:.1%} ({r['low']:.1%} to {r['high']:.1%}) | {r['answers']} | {r['participants']} |"
        for r in result["preferences"]
    ]
    share = result["left_share"]
    note = (
        f"The left side was chosen in {share:.1%} of decided answers."
        if share is not None
        else "No answer was decided."
    )
    return "\n".join([*lines, "", note]) + "\n"


def _json(path: Path, what: str) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error})", what) from error
    if not isinstance(data, dict) or "study" not in data:
        raise InputError(f"{path} is another kind of file", what)
    return data
