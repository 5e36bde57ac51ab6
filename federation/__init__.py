"""The federation's knowledge and memory: state, rules of change, the bridge to the market."""
