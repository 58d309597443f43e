"""Events: what happened to tasks and annotators, and what is to be done about it.

Takes what a pull stored; detects events, logs each once, matches them with the configured rules, and delivers
them to callbacks, Slack, programs and review queues.
"""
