"""The benchmark's harness: one broker, two engines on the same work, interleaved, and a table of the figures."""
