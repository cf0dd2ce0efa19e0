"""What `EnergyMonitor` measures with: devices, their counters, windows of joules, power caps."""
