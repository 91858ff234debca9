"""The coverage-guided fuzzer of the packet path; see __main__."""
