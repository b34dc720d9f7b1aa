"""What every command shows a person: plots, landscapes, videos, one self-contained HTML page.

These functions take arrays, plain dicts and callables. They know nothing of models, training or simulators, so a report can be
made again from the files of a run alone.
"""
