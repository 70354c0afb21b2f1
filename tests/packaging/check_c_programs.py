"""Builds a C program with pkg-config and with CMake, shared and static, and a C++ program, in an empty folder."""
import os

from packaging_support import SOURCE, Installed, need, run

HELLO = SOURCE / "examples/01_hello.c"
CMAKE = """cmake_minimum_required(VERSION 3.20)
project(consumer C CXX)
find_package(costinfer 0.1 REQUIRED COMPONENTS static)
add_executable(shared hello.c)
target_link_libraries(shared PRIVATE costinfer::costinfer)
add_executable(static hello.c)
target_link_libraries(static PRIVATE costinfer::costinfer_static)
add_executable(cpp wrapper.cpp)
target_compile_features(cpp PRIVATE cxx_std_17)
find_package(PkgConfig REQUIRED)
pkg_check_modules(cjson REQUIRED IMPORTED_TARGET libcjson)
target_link_libraries(cpp PRIVATE costinfer::costinfer PkgConfig::cjson)
"""
# A program's functions may have the names of the library's internal ones.
CLASH = """#include <stdio.h>
void mem_free(void *p); void mem_free(void *p) { (void)p; puts("mine"); }
int cinf_fail(void); int cinf_fail(void) { return 7; }
int strbuf_add(void); int strbuf_add(void) { return 8; }
"""


def needed(program):
    return run("readelf", "-d", program)


def check(program, here, shared, env=None):
    out = run(program, here.models / "stories-small", cwd=here.work, env=env)
    assert "there was a" in out and "$0.0" in out, out
    assert ("libcostinfer.so.0" in needed(program)) == shared, needed(program)


need("gcc", "g++", "pkg-config")
with Installed() as here:
    env, work = here.env(), here.work
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-std=c11"]

    flags = run("pkg-config", "--cflags", "--libs", "libcostinfer", env=env).split()
    assert "-lcjson" not in flags, "the shared library brings its own needs"
    run("gcc", *strict, HELLO, "-o", work / "shared", *flags)
    check(work / "shared", here, True, env)

    # --static lists everything that libcostinfer.a needs.  The .so is moved away, so that the linker uses the archive.
    flags = run("pkg-config", "--static", "--cflags", "--libs", "libcostinfer", env=env).split()
    lib = here.lib
    for so in lib.glob("libcostinfer.so*"):
        so.rename(here.root / so.name)
    (work / "clash.c").write_text(CLASH)
    run("gcc", *strict, HELLO, work / "clash.c", "-o", work / "static", *flags)
    check(work / "static", here, False)
    for so in here.root.glob("libcostinfer.so*"):
        so.rename(lib / so.name)
    print("pkg-config: shared and static")

    (work / "cmake").mkdir()
    (work / "cmake/CMakeLists.txt").write_text(CMAKE)
    (work / "cmake/hello.c").write_bytes(HELLO.read_bytes())
    (work / "cmake/wrapper.cpp").write_bytes((SOURCE / "tests/packaging/wrapper.cpp").read_bytes())
    run("cmake", "-S", work / "cmake", "-B", work / "out", f"-DCMAKE_PREFIX_PATH={here.prefix}",
        "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror")
    run("cmake", "--build", work / "out", "-j", os.cpu_count())
    check(work / "out/shared", here, True)
    check(work / "out/static", here, False)
    run(work / "out/cpp", here.models / "stories-small", SOURCE / "tests/conformance/scenario.json", quiet=False)
    print("CMake: shared, static and C++")
