#!/bin/sh
# Builds the guest programs for wasm32-wasip1, bit for bit the same on each machine: the sample tasks into wasm/
# here, the kernels of `talka bench sandbox` into ../benches/kernels/wasm/.
#
#   rebuild.sh           builds, and replaces *.wasm and SHA256SUMS in both
#   rebuild.sh --check   builds, and compares with the files that are there instead
#
# Exit code: 0 done, or nothing differs
#            1 a build failed, or a file differs
#            2 wrong arguments
#            3 with --check only: the pinned compiler can't be had any more, so nothing was built;
#              the modules match SHA256SUMS, and their behaviour is what is left to check
#
# The compiler is Debian's rustc-web with LLVM and wasi-libc, in exact versions, unpacked
# privately: nothing is installed, no root is needed, and rustup's toolchains stay as they are. Of
# what is installed, `cargo` and `cc` are used, in any recent version: the bytes don't depend on
# them. All lies in ${XDG_CACHE_HOME:-~/.cache}/talka-wasm-toolchain: 1 GB, made once in a minute or two.
set -eu

packages='
    rustc-web=1.96.0+dfsg1-1~deb12u2
    libstd-rust-web-1.96=1.96.0+dfsg1-1~deb12u2
    libstd-rust-web-dev=1.96.0+dfsg1-1~deb12u2
    rust-web-src=1.96.0+dfsg1-1~deb12u2
    libllvm22=1:22.1.8-1~deb12u1
    lld-22=1:22.1.8-1~deb12u1
    liblld-22=1:22.1.8-1~deb12u1
    wasi-libc=0.0~git20220510.9886d3d-2
'
target=wasm32-wasip1
# Raised when the way the toolchain is set up changes, so that it is made anew.
recipe=1

say() { printf 'rebuild.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
usage() { say 'usage: rebuild.sh [--check]'; exit 2; }

# The pinned compiler can't be had: all that can be told is whether the modules are the recorded ones.
compiler_unavailable() {
    say "$*"
    [ "$mode" = check ] || exit 1
    for package in "$here" "$kernels"; do
        cd "$package/wasm"
        sha256sum --check --strict --quiet SHA256SUMS >&2 || fail "$package/wasm: the modules do not match SHA256SUMS"
    done
    say 'the modules match SHA256SUMS; that they follow from the sources was NOT checked'
    exit 3
}

# Downloads the pinned packages into $work/debs; fails when any can't be had.
download_packages() {
    mkdir -p "$work/debs" "$work/apt/lists/partial" "$work/apt/archives/partial" || return
    # Package lists of our own, so that no root is needed and the system's stay as they are.
    private="-o Dir::State::Lists=$work/apt/lists -o Dir::Cache=$work/apt"
    (
        cd "$work/debs" || exit
        # shellcheck disable=SC2086 # several words each, on purpose
        apt-get download -qq $packages || {
            say 'no such packages in the lists of this machine: trying with fresh ones'
            apt-get update -qq $private && apt-get download -qq $private $packages
        }
    ) >"$work/apt.log" 2>&1
}

# Makes $finished out of the packages: the compiler, its linker, a standard library for $target.
make_toolchain() {
    mkdir -p "$cache"
    # Made beside its place and renamed at the end: what has the name is complete.
    unfinished=$(mktemp -d "$cache/unfinished.XXXXXX")
    for package in "$work"/debs/*.deb; do dpkg -x "$package" "$unfinished"; done
    mkdir "$unfinished/bin"
    make_wrapper rustc bin/rustc
    make_wrapper wasm-ld lib/llvm-22/bin/wasm-ld

    libraries=$unfinished/usr/lib/rustlib/$target/lib
    mkdir -p "$libraries/self-contained"
    cp "$unfinished/usr/lib/wasm32-wasi/crt1-command.o" "$unfinished/usr/lib/wasm32-wasi/libc.a" \
        "$libraries/self-contained/"
    build_std
    cp "$work/std/target/$target"/release/deps/lib*.rlib "$libraries/"

    chmod 755 "$unfinished"
    # Another run may have been faster: then its toolchain, which is the same, stays.
    mv -T "$unfinished" "$finished" || [ -d "$finished" ]
}

# make_wrapper NAME PROGRAM: starts an unpacked program with the libraries unpacked beside it.
make_wrapper() {
    cat >"$unfinished/bin/$1" <<END
#!/bin/sh
usr=\$(dirname "\$0")/../usr
LD_LIBRARY_PATH=\$usr/lib/x86_64-linux-gnu:\$usr/lib/llvm-22/lib exec "\$usr/$2" "\$@"
END
    chmod +x "$unfinished/bin/$1"
}

# Builds std from the compiler's own sources, with the dependencies that come with them.
build_std() {
    say 'building the standard library'
    sources=$(realpath "$unfinished/usr/lib/rustlib/src/rust")/library
    mkdir -p "$work/std/src" "$work/std/.cargo"
    cd "$work/std"
    echo 'fn main() {}' >src/main.rs
    cat >Cargo.toml <<END
[package]
name = "std-for-guests"
version = "0.0.0"
edition = "2024"
[profile.release]
panic = "abort"
END
    cat >.cargo/config.toml <<END
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "$sources/vendor"
END
    build_with "$unfinished" "$sources=/rustc/library" '' RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT="$sources" \
        "$cargo" build --quiet --offline --release --target $target -Z build-std=std,panic_abort
}

# Builds the sample tasks into $work/tasks/wasm and the kernels into $work/kernels/wasm.
build_guests() {
    say 'building the programs'
    mkdir "$work/tasks" "$work/kernels"
    cp -R "$here/Cargo.toml" "$here/Cargo.lock" "$here/src" "$work/tasks/"
    build_package tasks /sample-tasks '' --locked
    # Part of the workspace when they are built natively, so the profile of programs has to be said here.
    cp -R "$kernels/Cargo.toml" "$kernels/src" "$work/kernels/"
    build_package kernels /benches/kernels -Ctarget-feature=+simd128 --config 'profile.release.lto="fat"' \
        --config profile.release.codegen-units=1 --config 'profile.release.panic="abort"' \
        --config 'profile.release.strip="symbols"'
}

# build_package NAME PATH FLAG ARGUMENT...: builds all programs of the package in $work/NAME, a copy: no configuration
# around the clone has a say. PATH is what is recorded for it, FLAG one more for the compiler, the rest is for cargo.
build_package() {
    package=$work/$1
    remapped=$package=$2
    flag=$3
    shift 3
    mkdir "$package/wasm"
    cd "$package"
    build_with "$finished" "$remapped" "$flag" \
        "$cargo" build --quiet --offline --release --target $target --bins "$@"
    for source in src/bin/*.rs; do
        cp "target/$target/release/$(basename "$source" .rs).wasm" wasm/
    done
    cd wasm
    chmod 644 ./*
    LC_ALL=C sha256sum -- *.wasm >SHA256SUMS
}

# build_with TOOLCHAIN FROM=TO FLAG [VARIABLE=VALUE...] COMMAND...: runs a build command with nothing of
# the user's environment and configuration. Paths FROM are recorded as TO: a module holds the paths
# of its sources. Bitcode in std lets programs be optimised together with it. FLAG may be empty.
build_with() {
    flags=$(printf '%s\037' "--remap-path-prefix=$2" -Cembed-bitcode=yes ${3:+"$3"})-Lnative=$1/usr/lib/wasm32-wasi
    toolchain=$1
    shift 3
    env -i PATH="$PATH" CARGO_HOME="$work/cargo-home" CARGO_INCREMENTAL=0 CARGO_ENCODED_RUSTFLAGS="$flags" \
        RUSTC="$toolchain/bin/rustc" CARGO_TARGET_WASM32_WASIP1_LINKER="$toolchain/bin/wasm-ld" "$@"
}

# compare_modules NAME FOLDER: says which files of FOLDER/wasm differ from those built in $work/NAME; fails when any does.
compare_modules() {
    built=$work/$1/wasm
    if diff -rq "$built" "$2/wasm" >"$work/differences"; then
        say "no difference: $(wc -l <"$built/SHA256SUMS") modules and SHA256SUMS of $1 are what the sources give"
        return
    fi
    sed "s|$built|a fresh build|g; s|$2/||g" "$work/differences" >&2
    fail "wasm/ of $1 is not what the sources give: run sample-tasks/rebuild.sh"
}

# replace_modules NAME FOLDER: puts what was built in $work/NAME into FOLDER/wasm.
replace_modules() {
    mkdir -p "$2/wasm"
    rm -f "$2"/wasm/*.wasm
    cp "$work/$1"/wasm/* "$2/wasm/"
    (cd "$2/wasm" && wc -c -- *.wasm) >&2
}

case $# in
    0) mode=build ;;
    1) [ "$1" = --check ] || usage; mode=check ;;
    *) usage ;;
esac
here=$(cd "$(dirname "$0")" && pwd -P)
kernels=$(cd "$here/../benches/kernels" && pwd -P)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/talka-wasm-toolchain
# shellcheck disable=SC2086 # one line for each package
finished=$cache/$(printf '%s\n' $recipe $packages | sha256sum | cut -c 1-16)
# The real cargo: rustup's stand-in looks for settings that the build must not see.
cargo=$(cd "$here" && rustup which cargo 2>/dev/null) || cargo=$(command -v cargo) || fail 'cargo is needed'

umask 022
work=$(mktemp -d)
unfinished=
trap 'cd /; rm -rf "$work" ${unfinished:+"$unfinished"}' EXIT
trap 'exit 1' HUP INT TERM

if [ ! -d "$finished" ]; then
    [ "$(uname -s -m)" = 'Linux x86_64' ] || compiler_unavailable 'the pinned compiler runs on Linux x86_64 only'
    for program in apt-get dpkg; do
        command -v $program >/dev/null || compiler_unavailable "$program is needed to get the pinned compiler"
    done
    say 'downloading the pinned compiler'
    download_packages || {
        grep -v '^W:' "$work/apt.log" >&2 || true
        compiler_unavailable 'the pinned compiler can not be had: this version is gone from the package registry,' \
            'or the registry is out of reach'
    }
    make_toolchain
fi
build_guests
action=replace_modules
[ $mode = build ] || action=compare_modules
$action tasks "$here"
$action kernels "$kernels"
