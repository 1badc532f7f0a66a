"""Both forms of apt sources are understood."""

import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import debian  # noqa: E402


class Sources(unittest.TestCase):
    def test_a_one_line_source_keeps_its_options(self):
        found = debian.one_line_sources(
            "# deb http://mirror.invalid/off bookworm main\n"
            "deb-src http://mirror.invalid/debian bookworm main\n"
            "deb [signed-by=/keys/a.gpg arch=amd64,arm64] http://mirror.invalid/debian bookworm main contrib # ours\n"
            "deb\thttp://mirror.invalid/debian   bookworm-updates  main\n")
        self.assertEqual(found, [
            {"URIs": "http://mirror.invalid/debian", "Suites": "bookworm", "Components": "main contrib",
             "Signed-By": "/keys/a.gpg", "Architectures": "amd64 arm64"},
            {"URIs": "http://mirror.invalid/debian", "Suites": "bookworm-updates", "Components": "main"}])

    def test_a_deb822_source_keeps_its_fields(self):
        found = debian.deb822_sources(
            "Types: deb deb-src\n# a mirror\nURIs: http://mirror.invalid/debian\nSuites: bookworm bookworm-updates\n"
            "components: main\nSigned-By:\n -----BEGIN\n .\n key\n\n"
            "Types: deb\nEnabled: no\nURIs: http://mirror.invalid/off\nSuites: bookworm\nComponents: main\n\n"
            "Types: deb-src\nURIs: http://mirror.invalid/src\nSuites: bookworm\nComponents: main\n")
        self.assertEqual(found, [
            {"URIs": "http://mirror.invalid/debian", "Suites": "bookworm bookworm-updates", "Components": "main",
             "Signed-By": "\n -----BEGIN\n .\n key"}])

    def test_the_machine_s_files_are_read_wherever_apt_has_them(self):
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            (place / "parts").mkdir()
            (place / "list").write_text("deb http://one.invalid/debian bookworm main\n")
            (place / "parts/two.list").write_text("deb http://two.invalid/debian bookworm main\n")
            (place / "parts/three.sources").write_text(
                "Types: deb\nURIs: http://three.invalid/debian\nSuites: bookworm\nComponents: main\n")
            (place / "parts/four.sources.disabled").write_text("Types: deb\nURIs: http://four.invalid/\nSuites: x\n")
            (place / "conf").write_text(
                f'Dir::Etc::sourcelist "{place}/list";\nDir::Etc::sourceparts "{place}/parts";\n')
            with mock.patch.dict(os.environ, APT_CONFIG=str(place / "conf")):
                found = [source["URIs"] for source in debian.sources()]
        self.assertEqual(found, [f"http://{name}.invalid/debian" for name in ("one", "three", "two")])


if __name__ == "__main__":
    unittest.main()
