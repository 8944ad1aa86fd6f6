#!/usr/bin/env python3
"""Opens a report in headless Chromium, fails on any request, console message or error, and takes screenshots.

python3 scripts/check_report.py report.html [--chromium chromium] [--screenshots DIR]

Needs a Chromium (Debian: apt-get install chromium) and nothing else. Screenshots: desktop (1280) and phone (390), light and dark.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    page = arguments.page.resolve()

    def open_page(*more):
        with tempfile.TemporaryDirectory() as profile:
            log = pathlib.Path(profile) / "net.json"
            command = [arguments.chromium, *FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr",
                       f"--log-net-log={log}", *more, page.as_uri()]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
            return answer, requests(log)

    answer, asked = open_page("--dump-dom")
    console = [line for line in answer.stderr.splitlines() if "CONSOLE" in line]
    figures = answer.stdout.count("<figure>")
    drawn = answer.stdout.count("<svg class=\"hw\"")
    asked = [url for url in asked if not url.startswith(("data:", "chrome", page.as_uri()))]
    print(f"{page.name}: {figures} figures, {drawn} drawn, {len(asked)} requests, {len(console)} console messages")
    for line in asked + console:
        print(line)
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
        for width, name in [(1280, "desktop"), (390, "phone")]:
            for scheme in ["light", "dark"]:
                shot = arguments.screenshots.resolve() / f"{page.stem}-{name}-{scheme}.png"
                dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
                open_page(f"--screenshot={shot}", f"--window-size={width},{6000 if width > 1000 else 9000}", *dark)
                print(f"wrote {shot}")
    raise SystemExit(bool(asked or console or not figures or figures != drawn))


def requests(log):
    """URLs that the page asked for."""
    try:
        text = log.read_text()
    except FileNotFoundError:
        return []
    # A browser that is ended leaves the list open.
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:
        events = json.loads(text.rstrip().rstrip(",") + "]}")["events"]
    asked = [e.get("params", {}) for e in events]
    # What the browser asks for on its own account has no origin.
    return sorted({p["url"] for p in asked if "url" in p and p.get("initiator", "not an origin") != "not an origin"})


if __name__ == "__main__":
    main()
