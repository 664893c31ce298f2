# Each target is a line or two that you could type yourself.
INVENTORY ?= inventories/local
CONFIRM ?=
PYTHON ?= python3
# Root needs no become; a user with a password for sudo is asked for it once.
BECOME := $(shell if [ "$$(id -u)" = 0 ]; then :; elif sudo -n true 2>/dev/null; then echo --become; else echo --become --ask-become-pass; fi)
PLAY = .venv/bin/ansible-playbook -i $(INVENTORY) $(BECOME)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help up down test lint unit molecule bench chaos

help: ## what there is to type
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

up: .venv/tools ## set up this machine (or INVENTORY=...) and prove that it works
	$(PLAY) playbooks/site.yml

down: .venv/tools ## remove all that `make up` made (asks first; CONFIRM=yes does not)
	$(PLAY) playbooks/uninstall.yml $(if $(CONFIRM),-e uninstall_confirm=$(CONFIRM))

test: .venv/tests ## everything CI runs
	tests/run

lint unit molecule: .venv/tests ## one part of it
	tests/run $@

.venv/tools: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	touch $@

.venv/tests: tests/requirements.txt .venv/tools
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.txt
	touch $@

bench: .venv/tests ## measure deploys beside the plain way, and print a table
	bench/run

chaos: .venv/tests ## break everything under load on both Debians (hours), and write docs/reliability.md
	tests/chaos/run
