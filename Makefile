# bosun: everything a person or a CI types. `make help` lists it.

CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=
# A `ctl` link beside `bosunctl`: CTL_LINK=no declines it.
CTL_LINK ?= yes
# Most of a test is waiting: more of them than there are processors.
TEST_THREADS ?= 4
# How many times longer than on a quiet machine a step of a test may take before it counts as failed.
TEST_PATIENCE ?= 3
# How many times what a row of the fault matrix has written.
ROUNDS ?= 1
UNITDIR ?= $(PREFIX)/lib/systemd/system

HOST_TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')

# Debian's names of what is needed to build, to run and to test.
PACKAGES       := gcc libc6-dev libseccomp-dev ca-certificates nftables iproute2 util-linux procps python3
# Peers of the tests: a registry, what reads and writes its images, a system that fits in one file, what
# drives a runtime or a shim, CNI plugins, and what makes disks and calls of the kernel fail.
TEST_PACKAGES  := docker-registry skopeo umoci busybox-static openssl containerd podman conmon runc crun criu \
                  containernetworking-plugins e2fsprogs strace
# An emulator, and what makes a root file system for it.
VM_PACKAGES    := qemu-system-x86 mmdebstrap debian-archive-keyring e2fsprogs
BENCH_PACKAGES := debootstrap

# Daemon, ctl and tests share cargo's release profile, so that dependencies are built once. The shim
# and the OCI runtime are static, have a profile of their own (`panic` can't be set per package) and so
# their own directory.
BUILD      = $(CARGO) build --locked --release
BUILD_SHIM = RUSTFLAGS="-Ctarget-feature=+crt-static" LIBSECCOMP_LINK_TYPE=static \
             LIBSECCOMP_LIB_PATH="$$(dirname "$$(gcc -print-file-name=libseccomp.a)")" \
             $(CARGO) build --locked --profile shim --target $(HOST_TARGET) --target-dir target/shim
# bosund takes minutes to be optimized: where only tests run its code, it is not.
UNOPTIMIZED = --config profile.release.package.bosund.opt-level=0
SHIM_BUILT = target/shim/$(HOST_TARGET)/shim

# $(call put,FROM,TO): a running program keeps its old file, a new start finds the new one whole.
define put
	@cp $(1) $(2).new && mv -f $(2).new $(2)
endef

.PHONY: help build build-test run test test-vm test-vm-core unit bench matrix critest-vm critest-table lint deps test-deps vm-deps bench-deps toolchain install uninstall clean

help:
	@echo 'make run      the main job, shown on this machine as a transcript (root)'
	@echo 'make test     all tests, on the real binaries (root)'
	@echo 'make test-vm  tests in a virtual machine with cgroup v2, systemd, AppArmor (root);'
	@echo '              VM="PROGRAM FILTER..." runs a part, test-vm-core what `make test` runs of it'
	@echo 'make build    bosund, bosun-shim, bosun-oci and ctl, side by side in bin/'
	@echo 'make bench    bosun beside containerd+runc and podman+conmon (root)'
	@echo 'make matrix   faults again and again, ROUNDS=1 times as often as written, and the table in'
	@echo '              docs/RELIABILITY.md; MATRIX="--only WORD" runs a part, --full with the counts of a release,'
	@echo '              --report FILE takes what `make test` or `make test-vm` printed,'
	@echo '              OLDER=DIRECTORY also up- and downgrades from programs of before (root)'
	@echo 'make critest-vm CRITEST=FILE REGISTRY=DIRECTORY'
	@echo '              critest in that virtual machine: the program, and the images it asks for (root)'
	@echo 'make critest-table REPORT=FILE WEBSOCKET=FILE WHERE=machine|vm'
	@echo '              the tables in docs/kubernetes.md, from the JUnit reports of critest'
	@echo 'make lint     rustfmt, clippy, and cargo-deny when it is installed'
	@echo 'make unit     the tests that need neither root nor a build in bin/'
	@echo 'make deps     installs what Debian has to provide (root), or says what it is'
	@echo 'make install  PREFIX=/usr/local DESTDIR= CTL_LINK=yes UNITDIR=PREFIX/lib/systemd/system'
	@echo 'make clean    removes target/ and bin/'

toolchain:
	@command -v $(CARGO) >/dev/null || { echo 'make: cargo not found: install Rust 1.89 or later (https://rustup.rs) and put it on PATH' >&2; exit 1; }

deps:
	@integration/deps.sh $(PACKAGES)

test-deps:
	@integration/deps.sh $(TEST_PACKAGES)

vm-deps:
	@integration/deps.sh $(VM_PACKAGES)

bench-deps:
	@integration/deps.sh $(TEST_PACKAGES) $(BENCH_PACKAGES)

build: toolchain deps
	$(BUILD) -p bosund -p bosun-ctl
	$(BUILD_SHIM) -p bosun-shim -p bosun-oci
	@mkdir -p bin
	$(call put,target/release/bosund,bin/bosund)
	$(call put,target/release/ctl,bin/ctl)
	$(call put,$(SHIM_BUILT)/bosun-shim,bin/bosun-shim)
	$(call put,$(SHIM_BUILT)/bosun-oci,bin/bosun-oci)

# The same two with failpoints compiled in: only tests run them.
build-test: toolchain deps test-deps
	$(BUILD) -p bosund --features bosund/failpoints $(UNOPTIMIZED)
	$(BUILD_SHIM) -p bosun-shim --features bosun-shim/failpoints
	@mkdir -p bin/failpoints
	$(call put,target/release/bosund,bin/failpoints/bosund)
	$(call put,$(SHIM_BUILT)/bosun-shim,bin/failpoints/bosun-shim)
	@ln -sfn ../bosun-oci bin/failpoints/bosun-oci

run: build
	@integration/demo.sh

# build-test first: what lies in target/ afterwards is what `make build` made.
test: vm-deps
	@$(MAKE) --no-print-directory build-test
	@$(MAKE) --no-print-directory build
	@RUST_TEST_THREADS=$(TEST_THREADS) BOSUN_TEST_PATIENCE=$(TEST_PATIENCE) integration/leak-check.sh integration/run-tests.py $(CARGO) test --locked --release --workspace $(UNOPTIMIZED)
	@integration/vm/test.sh core

test-vm: build vm-deps
	@integration/vm/test.sh all $(VM)

test-vm-core: build vm-deps
	@integration/vm/test.sh core

unit: toolchain
	$(CARGO) test --locked --release --workspace --exclude integration $(UNOPTIMIZED)

bench: build bench-deps
	$(CARGO) run --locked --release -p integration --bin bench -- --date "$$(date -u +%Y-%m-%dT%H:%M:%SZ)" $(BENCH)

matrix:
	@$(MAKE) --no-print-directory build-test
	@$(MAKE) --no-print-directory build
	$(CARGO) run --locked --release -p integration --bin matrix -- --date "$$(date -u +%Y-%m-%dT%H:%M:%SZ)" --rounds $(ROUNDS) $(MATRIX)

# critest is no part of this: its reports are made by who has it (docs/kubernetes.md says how).
critest-vm: build vm-deps
	@integration/vm/critest.sh "$(CRITEST)" "$(REGISTRY)" $(ARGUMENTS)

critest-table: toolchain
	$(CARGO) run --locked --release -p integration --bin critest -- --report $(REPORT) $(if $(WEBSOCKET),--websocket $(WEBSOCKET)) --where $(or $(WHERE),machine)

lint: toolchain deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --release --workspace --all-targets --all-features -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --offline check bans licenses sources; \
	 else echo 'lint: cargo-deny is not installed, deny.toml was not checked'; fi

install:
	@test -x bin/bosund -a -x bin/bosun-shim -a -x bin/bosun-oci -a -x bin/ctl || { echo 'make install: run `make build` first' >&2; exit 1; }
	install -D -m 0755 bin/bosund $(DESTDIR)$(PREFIX)/bin/bosund
	install -D -m 0755 bin/bosun-shim $(DESTDIR)$(PREFIX)/bin/bosun-shim
	ln -sfn bosun-shim $(DESTDIR)$(PREFIX)/bin/containerd-shim-bosun-v1
	install -D -m 0755 bin/bosun-oci $(DESTDIR)$(PREFIX)/bin/bosun-oci
	install -D -m 0755 bin/ctl $(DESTDIR)$(PREFIX)/bin/bosunctl
	@if [ "$(CTL_LINK)" = yes ]; then ln -sfn bosunctl $(DESTDIR)$(PREFIX)/bin/ctl; fi
	install -d -m 0755 $(DESTDIR)$(UNITDIR)
	sed 's|@PREFIX@|$(PREFIX)|g' daemon/dist/bosund.service > $(DESTDIR)$(UNITDIR)/bosund.service
	chmod 0644 $(DESTDIR)$(UNITDIR)/bosund.service
	install -D -m 0644 daemon/dist/config.toml $(DESTDIR)/etc/bosun/config.toml.example

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/bosund $(DESTDIR)$(PREFIX)/bin/bosun-shim \
	      $(DESTDIR)$(PREFIX)/bin/containerd-shim-bosun-v1 \
	      $(DESTDIR)$(PREFIX)/bin/bosun-oci $(DESTDIR)$(PREFIX)/bin/bosunctl
	@if [ "$$(readlink $(DESTDIR)$(PREFIX)/bin/ctl)" = bosunctl ]; then rm -f $(DESTDIR)$(PREFIX)/bin/ctl; fi
	rm -f $(DESTDIR)$(UNITDIR)/bosund.service $(DESTDIR)/etc/bosun/config.toml.example

clean:
	$(CARGO) clean
	rm -rf bin
