"""Studies: questions asked as grids of runs, on this machine or a cluster, and answered from their Records alone.

Nothing here imports torch: what a study trains, it trains by the command `relatum train ... --run DIR --resume`.
"""
