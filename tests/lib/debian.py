"""Unpacks Debian packages, with everything they depend on, without installing anything.

No root is needed, no maintainer script runs and nothing outside the destination is written: apt works on
state of its own. Mirrors, keyrings and proxies are those of the machine's own apt configuration.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

# Bound on one apt or dpkg run: a mirror that hangs must not hang the tests with it.
APT_TIMEOUT_SECONDS = 900

# What a server does not need to run; the rest of a package is kept.
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/perl",
            "usr/share/zoneinfo", "usr/lib/*/perl", "usr/lib/*/perl-base", "usr/lib/*/gconv", "usr/lib/*/audit")


class Unavailable(Exception):
    """A package cannot be had from the machine's sources; the message says why."""


def release():
    """The code name of the machine's own release, such as `bookworm`."""
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.split("=", 1)[1].strip('"')
    raise Unavailable("/etc/os-release names no VERSION_CODENAME: the servers come from a Debian-like machine's apt")


def sources():
    """The machine's apt sources of binary packages, as deb822 fields, from files of either form."""
    paths = dict(line.split("=", 1) for line in run(
        ["apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"]).splitlines())
    one_file, directory = (Path(paths[name].strip("'")) for name in ("LIST", "PARTS"))
    found = []
    for path in [one_file, *(sorted(directory.iterdir()) if directory.is_dir() else [])]:
        if path == one_file or path.suffix == ".list":
            found += one_line_sources(path.read_text()) if path.is_file() else []
        elif path.suffix == ".sources":
            found += deb822_sources(path.read_text())
    return found


def one_line_sources(text):
    """`deb [signed-by=… arch=…] URI suite component…`, one a line."""
    found = []
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if match:
            options, uri, suite, components = match.groups()
            fields = {"URIs": uri, "Suites": suite, "Components": components.strip()}
            for option in (options or "").split():
                name, _, value = option.partition("=")
                fields["Architectures" if name == "arch" else name.title()] = value.replace(",", " ")
            found.append(fields)
    return found


def deb822_sources(text):
    """Stanzas of `Field: value`, a value going on in lines that begin with a space."""
    names = {name.lower(): name for name in ("Types", "URIs", "Suites", "Components", "Enabled")}
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields, last = {}, None
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and last:
                fields[last] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                last = names.get(name.strip().lower(), name.strip())
                fields[last] = value.strip()
        enabled = fields.pop("Enabled", "yes").lower() not in ("no", "false", "0", "off")
        if enabled and "deb" in fields.pop("Types", "").split():
            found.append(fields)
    return found


def unpack_own_release(packages, destination):
    """Unpacks `packages` of the machine's own release into `destination`."""
    own, chosen = release(), []
    for source in sources():
        suites = [s for s in source["Suites"].split() if s == own or s.startswith(own + "-")]
        if suites and "main" in source.get("Components", "").split():
            chosen.append({**source, "Suites": " ".join(suites)})
    if not chosen:
        raise Unavailable(f"no apt source of this machine names the suite {own} with its component main")
    unpack(chosen, packages, destination)


def unpack_suite(suite, packages, destination):
    """Unpacks `packages` of another `suite`, from where the machine has its own release from."""
    own, reasons = release(), []
    for source in sources():
        if own in source["Suites"].split() and "main" in source.get("Components", "").split():
            try:
                return unpack([{**source, "Suites": suite, "Components": "main"}], packages, destination)
            except Unavailable as error:
                reasons.append(str(error))
    raise Unavailable("; ".join(reasons) or f"no apt source of this machine names the suite {own}")


def unpack(chosen, packages, destination):
    """Downloads `packages` and all they depend on from the sources `chosen`, and unpacks them."""
    with tempfile.TemporaryDirectory(prefix="tidelog-apt-") as directory:
        state = Path(directory)
        environment = private_apt(state, chosen)
        run(["apt-get", "-qq", "update"], env=environment)
        run(["apt-get", "-qq", "--yes", "--no-install-recommends", "--download-only", "install", *packages],
            env=environment)
        archives = sorted((state / "cache" / "archives").glob("*.deb"))
        if not archives:
            raise Unavailable(f"apt downloaded nothing for {' '.join(packages)}")
        for archive in archives:
            run(["dpkg-deb", "--extract", str(archive), str(destination)])
    for pattern in LEFT_OUT:
        for path in destination.glob(pattern):
            shutil.rmtree(path)


def private_apt(state, chosen):
    """An environment in which apt has state and sources of its own, and the machine's proxies and keyrings."""
    for folder in ("lists/partial", "cache/archives/partial", "sources"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    stanzas = ["\n".join(["Types: deb", *(f"{name}: {value}" for name, value in source.items())]) for source in chosen]
    (state / "sources" / "tests.sources").write_text("\n\n".join(stanzas) + "\n")
    # Of the machine's settings only those of downloading: its hooks (which assume root) stay out.
    kept = [line for line in run(["apt-config", "dump"]).splitlines()
            if line.startswith("Acquire::") and "IndexTargets" not in line]
    own = {"Dir::Etc::main": "/dev/null", "Dir::Etc::parts": "/dev/null", "Dir::Etc::sourcelist": "/dev/null",
           "Dir::Etc::sourceparts": state / "sources", "Dir::Etc::preferences": "/dev/null",
           "Dir::Etc::preferencesparts": "/dev/null", "Dir::State": state, "Dir::State::lists": state / "lists",
           "Dir::State::status": state / "status", "Dir::Cache": state / "cache", "APT::Sandbox::User": "",
           "Acquire::Languages": "none", "Acquire::Retries": "3", "APT::Update::Error-Mode": "any"}
    (state / "apt.conf").write_text("\n".join([*kept, *(f'{name} "{value}";' for name, value in own.items())]) + "\n")
    return {**os.environ, "APT_CONFIG": str(state / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}


def run(command, env=None):
    """Runs `command` and returns what it prints; raises `Unavailable` with what it said when it fails."""
    try:
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=APT_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-600:]
        raise Unavailable(f"{' '.join(command[:3])} failed: {said}")
    return done.stdout
