"""What `rillcast bench` measures. Ratios are taken within one run; the machine is part of every result."""
