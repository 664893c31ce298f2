# Each target is a line or two that you could type yourself.
INVENTORY ?= inventories/local
CONFIRM ?=
# What `make down` does with RabbitMQ, Redis and Supervisor; on this machine they go too, if nothing else uses them.
SERVICES ?= $(if $(filter inventories/local,$(INVENTORY)),yes,no)
PYTHON ?= python3
# On this machine the plays become root by sudo: where that wants a password, it is asked for once. For other machines'
# sudo, say ANSIBLE_BECOME_ASK_PASS=yes before make, or set ansible_become_password in the inventory.
LOCAL_SUDO = $(if $(filter inventories/local inventories/local/,$(INVENTORY)),$(shell \
	[ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null || echo --ask-become-pass))
PLAY = .venv/bin/ansible-playbook -i '$(INVENTORY)' $(LOCAL_SUDO)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# By itself Ansible takes no ansible.cfg from a directory that anybody may write to.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Ansible keeps its own files at home, where a CI runner may have none, or may not write.
ifeq ($(shell test -d "$$HOME" -a -w "$$HOME" && echo yes),)
export ANSIBLE_HOME ?= $(CURDIR)/.ansible
endif

.DEFAULT_GOAL := help
.PHONY: help up down test lint unit integration templates policy molecule apps sanity bench matrix chaos operate

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

up: .venv/tools ## set up this machine (or INVENTORY=...) and check that it works
	$(PLAY) playbooks/site.yml

down: .venv/tools ## remove what `make up` made (asks first; CONFIRM=yes does not; SERVICES=no keeps RabbitMQ, Redis, Supervisor)
	$(PLAY) playbooks/uninstall.yml -e uninstall_services=$(SERVICES) $(if $(CONFIRM),-e uninstall_confirm=$(CONFIRM))

test: .venv/tests ## everything CI runs; one part of it: make lint, unit, integration, templates, policy or molecule
	tests/run

lint unit integration templates policy molecule: .venv/tests
	tests/run $@

.venv/tools: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	touch $@

.venv/tests: tests/requirements.txt .venv/tools
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.txt
	touch $@

sanity: .venv/tests ## run ansible-test sanity over the plugins (it makes virtualenvs of its own from your package index)
	tests/sanity/run

bench: .venv/tests ## measure the kit beside plain tools, and write docs/performance.md and the README's table
	bench/run

apps: .venv/tests ## deploy every application of tests/apps all the way: second run, load, rollback, broken release
	CELERY_OPS_APPS=all tests/run apps

operate: .venv/tests ## try all verbs of daily life on a host, the long tests too
	CELERY_OPS_CHAOS=all tests/run operate

matrix: .venv/tests ## try every supported version of Celery on both Debians, as whole deploys too (an hour and a half)
	tests/matrix/run

chaos: .venv/tests ## inject every fault under load on both Debians (hours), and write docs/reliability.md
	tests/chaos/run
