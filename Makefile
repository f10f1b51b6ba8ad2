# For habit's sake: every target is ./run TARGET.
.PHONY: build serve test check bench
build serve test check bench:
	@./run $@
