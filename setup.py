"""What is compiled, where a C compiler is there; everything else is in pyproject.toml.

DWEBSOCKET_COMPILE=0 leaves it uncompiled, 1 insists on it. Without the variable, the installation succeeds either way.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

#: The way of a message. Each of these is an ordinary module as well, and runs as that where it is not compiled.
MODULES = [
    "protocol.masking",
    "protocol.frames",
    "protocol.parser",
    "protocol.messages",
    "protocol.endpoint",
    "reactors.clock",
    "connection.sockets",
    "reactors.base",
    "reactors.runners",
    "reactors.gevent",
    "reactors.pool",
    "reactors.thread",
    "connection.ending",
    "connection.keepalive",
    "connection.outbox",
    "connection.batch",
    "connection.lifetime",
    "connection.sending",
    "connection.connection",
    "connection.verbs",
    "upgrade.parking",
]
WANTED = os.environ.get("DWEBSOCKET_COMPILE", "")


class BuildAllOrNothing(build_ext):
    """Builds all of them, or none: one that is compiled does not work with one that is not."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or True  # a minute of one processor, and each file takes its share alone

    def build_extensions(self):
        if self.compiler.compiler_type == "unix":  # gcc, clang
            # Python was built with -g, and symbols for a debugger are four times the code. Where CFLAGS says otherwise,
            # that is the choice of a distributor, who keeps the symbols in a package of their own.
            chosen = {flag[:2] for flag in os.environ.get("CFLAGS", "").split()}
            options = [option for option in ("-O3", "-g0") if option[:2] not in chosen]
            for extension in self.extensions:
                extension.extra_compile_args = options
        super().build_extensions()

    def run(self):
        try:
            super().run()
        except Exception as error:
            if WANTED == "1":
                raise
            print(f"dwebsocket is installed without its compiled modules: {error}", file=sys.stderr)
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = self.distribution.ext_modules = []


class NamedAfterItsContents(bdist_wheel):
    """A wheel of Python alone is one for every Python and platform. That is known only when all is built."""

    def run(self):
        self.run_command("build")
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()


def extensions():
    if WANTED == "0":
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:  # a build without isolation
        if WANTED == "1":
            raise
        return []
    modules = [Extension(f"dwebsocket.{name}", [f"dwebsocket/{name.replace('.', '/')}.py"]) for name in MODULES]
    # The types are in the .pxd files; an annotation says what Python means by it.
    return cythonize(
        modules, build_dir="build/cython", language_level=3, compiler_directives={"annotation_typing": False}
    )


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildAllOrNothing, "bdist_wheel": NamedAfterItsContents})
