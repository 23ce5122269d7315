"""Holds what operators are given to what a running system has.

    .venv/bin/python ops/check.py NAME=HOST:PORT … [--write]

Scrapes each stage's /metrics (NAME is chat, cdc, join, delivery, history, push, lag or broker) with a real Prometheus, then
checks that promtool finds nothing wrong with them, that docs/metrics.md lists each of them and no other (--write makes
it so), and that every query of the dashboard and of the rules is accepted and asks only for metrics that there are.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIST = os.path.join(ROOT, "docs", "metrics.md")
STAGES = ["chat", "cdc", "join", "delivery", "history", "push", "lag", "broker"]
HEALTH = ["fanout_condition_met", "fanout_ready"]
problems = []


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def families(text):
    """name → (type, help, labels)"""
    found = {}
    for name, words in re.findall(r"^# HELP (\S+) (.*)$", text, re.M):
        found[name] = ["", words.rstrip("."), set()]
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M):
        found.setdefault(name, ["", "", set()])[0] = kind
    for series, labels in re.findall(r"^(\w+)\{(.*)\} ", text, re.M):
        base = series if series in found else re.sub(r"_(bucket|sum|count)$", "", series)
        found[base][2] |= set(re.findall(r'(\w+)="', labels)) - {"le"}
    return found


def listing(by_stage):
    """docs/metrics.md"""
    lines = [
        "# Metrics", "",
        "Every stage serves them at `/metrics` (`--metrics HOST:PORT`; the chat server on its own port; `fanout lag --prometheus HOST:PORT`),",
        "in Prometheus' text format. Counters end in `_total`, durations are in seconds, histograms have a bucket for each doubling.",
        "`ops/check.py` holds this list to a running system; the dashboard and the alerts in [ops/](../ops) are made of these.", "",
    ]
    process = {name for found in by_stage.values() for name in found if name.startswith("process_") or name in HEALTH}
    for title, names in [(stage, by_stage.get(stage, {})) for stage in STAGES] + [("every process", process)]:
        every = title == "every process"
        rows = [n for n in sorted(names) if every or n not in process]
        if not rows:
            continue
        heading = "Every process" if every else f"`fanout {title}`"
        lines += [f"## {heading}", "", "| metric | type | labels | what it tells |", "|---|---|---|---|"]
        for name in rows:
            kind, words, labels = next(found[name] for found in by_stage.values() if name in found)
            shown = " ".join(f"`{label}`" for label in sorted(labels)) or "–"
            lines.append(f"| `{name}` | {kind} | {shown} | {words[:1].upper() + words[1:]} |")
        lines.append("")
    return "\n".join(lines)


def queries():
    """(where, expression) of the dashboard and the rules."""
    with open(os.path.join(ROOT, "ops/grafana/fanout.json")) as file:
        for panel in json.load(file)["panels"]:
            for target in panel.get("targets", []):
                yield f"panel “{panel['title']}”", target["expr"].replace("$__rate_interval", "1m")
    with open(os.path.join(ROOT, "ops/prometheus/fanout.rules.yml")) as file:
        text = file.read()
    for name, expression in re.findall(r"- (?:alert|record): (\S+)\n +expr: (?:\|\n)?((?:.+\n)(?: {10,}.+\n)*)", text):
        yield f"rule {name}", " ".join(expression.split())


class Prometheus:
    """A real one, with the rules loaded and every stage as a target."""

    def __init__(self, targets):
        self.directory = tempfile.TemporaryDirectory()
        path = os.path.join(self.directory.name, "prometheus.yml")
        jobs = [{"job_name": f"fanout-{stage}", "static_configs": [{"targets": [address]}]}
                for stage, address in targets.items()]
        with open(path, "w") as file:
            # JSON is YAML.
            json.dump({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                       "rule_files": [os.path.join(ROOT, "ops/prometheus/fanout.rules.yml")],
                       "scrape_configs": jobs}, file)
        import socket
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={self.directory.name}/data",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"])

    def wait_for_scrapes(self, count):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                # Until it is ready it refuses every query with 503 and a line of text.
                fetch(f"{self.url}/-/ready")
                result = self.ask("min(count_over_time(up[1m]))")
                up = self.ask("sum(up)")
                if result and up and float(result[0]["value"][1]) >= 4 and float(up[0]["value"][1]) == count:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise SystemExit("Prometheus did not scrape all stages within a minute")

    def ask(self, expression):
        """The result's series; None when the query is not accepted."""
        try:
            answer = json.loads(fetch(f"{self.url}/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
            return answer["data"]["result"]
        except urllib.error.HTTPError as error:
            problems.append(f"{expression}: {json.loads(error.read())['error']}")
            return None

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.directory.cleanup()


def main():
    targets = dict(argument.split("=", 1) for argument in sys.argv[1:] if not argument.startswith("--"))
    prometheus = Prometheus(targets)
    try:
        # By then each has had the time to know its figures.
        prometheus.wait_for_scrapes(len(targets))
        by_stage = {}
        for stage, address in targets.items():
            text = fetch(f"http://{address}/metrics")
            by_stage[stage] = families(text)
            lint = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
            remarks = (lint.stderr + lint.stdout).strip()
            if lint.returncode != 0 or remarks:
                problems.append(f"{stage}: promtool: {remarks}")

        wanted = listing(by_stage)
        if "--write" in sys.argv:
            with open(LIST, "w") as file:
                file.write(wanted)
        with open(LIST) as file:
            listed = set(re.findall(r"^\| `(\w+)`", file.read(), re.M))
        there = {name for found in by_stage.values() for name in found}
        problems.extend(f"{name} is not in docs/metrics.md; ops/check.py --write puts it there" for name in there - listed)
        problems.extend(f"{name} is in docs/metrics.md, and no stage has it" for name in listed - there)

        asked = answered = 0
        for where, expression in queries():
            asked += 1
            for name in set(re.findall(r"\b(?:fanout|process)_\w+", expression)):
                base = re.sub(r"_(bucket|sum|count)$", "", name)
                if base not in there and not re.search(r"__name__=~", expression):
                    problems.append(f"{where}: there is no metric {name}")
            result = prometheus.ask(expression)
            if result:
                answered += 1
            elif result is not None and where.startswith("panel"):
                # Nothing has been refused, closed or held yet: no data is an answer. A wrong label would be none.
                print(f"{where}: no data now: {expression}")
        firing = prometheus.ask('ALERTS{alertstate="firing"}')
        print(f"{asked} queries asked, {answered} with data; {len(firing or [])} alerts firing; {len(there)} metrics")
    finally:
        prometheus.stop()
    for problem in problems:
        print("PROBLEM", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
