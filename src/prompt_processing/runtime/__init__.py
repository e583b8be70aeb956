"""What every process of ours needs: logs, signals, health, and the process that engines are forked from."""
