# Everything a person types. `up` and `test` set themselves up on a fresh machine, as root.
PY = .venv/bin/python
export PYTHONPATH = $(CURDIR)

.PHONY: up down doctor demo test test-fast test-vm driver-matrix lint bench setup setup-dev

setup:
	@sh scripts/setup.sh up

setup-dev:
	@sh scripts/setup.sh dev

up: setup
	@exec $(PY) -m scripts.up

down: setup
	@$(PY) -m scripts.down

doctor: setup
	@$(PY) -m scripts.doctor

demo: setup
	@$(PY) -m scripts.demo

lint: setup-dev
	@$(PY) -m scripts.lint

test: setup-dev
	@$(PY) -m scripts.test

test-vm: setup-dev
	@$(PY) -m scripts.test vm

driver-matrix: setup-dev
	@$(PY) -m scripts.driver_matrix

bench: setup-dev
	@$(PY) -m bench
