"""The wheel is pure Python and uses the installed libcostinfer.  With COSTINFER_BUNDLE=/path/libcostinfer.so.0 in the
environment, the wheel contains that library and is for this platform only."""
import os
import pathlib
import shutil
import sys

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

bundle = os.environ.get("COSTINFER_BUNDLE")
if bundle and not (os.path.isabs(bundle) and os.path.isfile(bundle)):
    # pip and build run this file in a folder of their own.
    sys.exit(f"COSTINFER_BUNDLE={bundle} is not the absolute path of a file")


class Build(build_py):
    def run(self):
        super().run()
        target = pathlib.Path(self.build_lib, "costinfer", "libcostinfer.so.0")
        target.unlink(missing_ok=True)
        if bundle:
            shutil.copyfile(bundle, target)


class Platform(Distribution):
    def has_ext_modules(self):
        return bool(bundle)


setup(license="MIT", cmdclass={"build_py": Build}, distclass=Platform)
