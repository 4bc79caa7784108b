"""Builds the engine, raftpico._core, from csrc/. Everything else is in pyproject.toml.

Environment:
    RAFTPICO_DEBUG=1     -O0 -g and all warnings
    RAFTPICO_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer
    RAFTPICO_COVERAGE=1  gcov
    RAFTPICO_LTO=0       no link-time optimisation (a tenth slower); else it is used where the
                         compiler can
    PKG_CONFIG, CC, CFLAGS, LDFLAGS as usual
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError

ROOT = Path(__file__).resolve().parent
LIBRARIES = {"libuv": "1.42", "jansson": "2.12"}  # pkg-config's name: oldest version

# What has to be installed for each thing that the build needs, on each system.
PACKAGES = {
    "Debian, Ubuntu": {
        "command": "apt install",
        "a C compiler": "gcc libc6-dev",
        "pkg-config": "pkg-config",
        "Python.h": "python3-dev",
        "libuv": "libuv1-dev",
        "jansson": "libjansson-dev",
    },
    "Fedora": {
        "command": "dnf install",
        "a C compiler": "gcc",
        "pkg-config": "pkgconf-pkg-config",
        "Python.h": "python3-devel",
        "libuv": "libuv-devel",
        "jansson": "jansson-devel",
    },
    "Alpine": {
        "command": "apk add",
        "a C compiler": "gcc musl-dev",
        "pkg-config": "pkgconf",
        "Python.h": "python3-dev",
        "libuv": "libuv-dev",
        "jansson": "jansson-dev",
    },
    "Arch": {
        "command": "pacman -S",
        "a C compiler": "gcc",
        "pkg-config": "pkgconf",
        "Python.h": "python",
        "libuv": "libuv",
        "jansson": "jansson",
    },
    "macOS": {
        "command": "brew install",
        "a C compiler": "",
        "pkg-config": "pkgconf",
        "Python.h": "python",
        "libuv": "libuv",
        "jansson": "jansson",
    },
}

WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
]

# The whole engine is optimised at once, when it is linked.
LINK_TIME = ["-flto=auto", "-O2"]
PROBE = {
    "value.c": "int probe_value(void) { return 42; }",
    "probe.c": "int probe_value(void); int probe(void) { return probe_value(); }",
}

# The commands that compile. What is missing is said before they have printed anything else.
BUILDS = {"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"}


def enabled(name: str, default: str = "0") -> bool:
    return os.environ.get(name, default) not in ("", "0")


def pkg_config(*arguments: str) -> list[str] | None:
    """The words that pkg-config prints, or None when it fails or is not there."""
    command = shlex.split(os.environ.get("PKG_CONFIG", "pkg-config"))
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return shlex.split(done.stdout) if done.returncode == 0 else None


def find_missing() -> dict[str, str]:
    """What the build needs and does not find: its name and a word about it."""
    missing = {}
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        missing["a C compiler"] = f"({compiler})"
    headers = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    if not any(Path(folder, "Python.h").exists() for folder in headers):
        missing["Python.h"] = "(the headers of this Python)"
    if pkg_config("--version") is None:
        missing["pkg-config"] = "(it finds the libraries)"
    for library, oldest in LIBRARIES.items():
        if pkg_config("--exists", f"{library} >= {oldest}") is None:
            found = pkg_config("--modversion", library)
            missing[library] = f"{oldest} or newer" + (f" (found {found[0]})" if found else "")
    return missing


def explain_missing(missing: dict[str, str]) -> str:
    """The short text that replaces a page of compiler errors."""
    lines = ["", "raftpico cannot be built here. Missing:"]
    lines += [f"  {name} {remark}" for name, remark in missing.items()]
    lines += ["", "To install what is missing:"]
    for system, packages in PACKAGES.items():
        names = " ".join(name for what in missing if (name := packages[what]))
        if system == "macOS" and "a C compiler" in missing:
            lines.append(f"  {system + ':':<16}xcode-select --install")
        if names:
            lines.append(f"  {system + ':':<16}{packages['command']} {names}")
    return "\n".join([*lines, ""])


class BuildEngine(build_ext):
    """Finds the libraries, and compiles the files side by side."""

    def build_extension(self, ext: Extension) -> None:
        self.configure(ext)
        sources = list(ext.sources)
        objects = self.compile(ext, sources)
        ext.sources, ext.extra_objects = [], objects
        ext.depends = [*sources, *ext.depends]
        try:
            super().build_extension(ext)
        finally:
            ext.sources, ext.extra_objects = sources, []

    def can_link_time(self) -> bool:
        """Whether what is compiled for it and linked comes out whole: it takes a linker that
        knows the compiler's objects."""
        if "lto" in os.environ.get("CFLAGS", ""):
            return False  # the user's choice
        try:
            with tempfile.TemporaryDirectory() as folder:
                return self.links_whole(Path(folder))
        except (CCompilerError, OSError):
            return False

    def links_whole(self, folder: Path) -> bool:
        for name, text in PROBE.items():
            (folder / name).write_text(text + "\n")
        objects = self.compiler.compile(
            [str(folder / name) for name in PROBE],
            output_dir="/",  # which means: beside the sources
            extra_postargs=LINK_TIME,
        )
        library = folder / "probe.so"
        self.compiler.link_shared_object(objects, str(library), extra_postargs=LINK_TIME)
        # In a process of its own: what was made with a sanitizer ends the one that loads it.
        call = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).probe() - 42)"
        done = subprocess.run(
            [sys.executable, "-c", call, str(library)], capture_output=True, check=False
        )
        return done.returncode == 0

    def configure(self, ext: Extension) -> None:
        ext.extra_compile_args += pkg_config("--cflags", *LIBRARIES) or []
        ext.extra_link_args += pkg_config("--libs", *LIBRARIES) or []
        special = ("RAFTPICO_DEBUG", "RAFTPICO_SANITIZE", "RAFTPICO_COVERAGE")
        if (
            enabled("RAFTPICO_LTO", "1")
            and not any(map(enabled, special))
            and self.can_link_time()
        ):
            ext.extra_compile_args += LINK_TIME
            ext.extra_link_args += LINK_TIME
        if enabled("RAFTPICO_DEBUG"):
            python = [f"-isystem{folder}" for folder in self.include_dirs]
            ext.extra_compile_args += ["-O0", "-g", *WARNINGS, *python]
        if enabled("RAFTPICO_SANITIZE"):
            flags = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g"]
            ext.extra_compile_args += [*flags, "-O1", "-fno-sanitize-recover=undefined"]
            ext.extra_link_args += flags
        if enabled("RAFTPICO_COVERAGE"):
            ext.extra_compile_args += ["--coverage", "-O0", "-g"]
            ext.extra_link_args += ["--coverage"]

    def compile(self, ext: Extension, sources: list[str]) -> list[str]:
        def compile_one(source: str) -> list[str]:
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=ext.include_dirs,
                extra_postargs=ext.extra_compile_args,
                depends=ext.depends,
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return [name for names in pool.map(compile_one, sources) for name in names]


def files(suffix: str) -> list[str]:
    """Those of csrc/ without its tests, relative to this file's folder."""
    found = sorted(ROOT.glob(f"csrc/**/*{suffix}"))
    return [
        str(path.relative_to(ROOT))
        for path in found
        if "tests" not in path.parts[len(ROOT.parts) :]
    ]


if BUILDS.intersection(sys.argv[1:]) and (missing := find_missing()):
    sys.exit(explain_missing(missing))

readme = ROOT / "README.md"

setup(
    license="MIT",
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    ext_modules=[
        Extension(
            "raftpico._core",
            files(".c"),
            include_dirs=["csrc"],
            depends=files(".h"),
            extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-fvisibility=hidden", "-O2"],
        )
    ],
    cmdclass={"build_ext": BuildEngine},
)
