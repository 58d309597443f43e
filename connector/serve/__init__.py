"""The running service: receives webhooks of the labeling tool, pulls, and delivers events.

Takes HTTP requests and a configuration; acknowledges each event as soon as it is durable, pulls while people
work, answers /ask, /readyz and /metrics, and ends in order on a signal.
"""
