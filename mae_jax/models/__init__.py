"""Networks, and networks only: no losses, no masking policy, no mesh axis names."""
