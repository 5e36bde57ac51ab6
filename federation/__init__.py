"""The federation's knowledge and memory: its state, its rules of change, its bridge to the market."""
