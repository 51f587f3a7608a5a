"""The processes of a run: their places, how they are started and how they agree.

world.py tells a process its place among others; launch.py starts the processes of one machine and
watches over them, child.py is what each of them runs; together.py is what they do together before
the first step; step.py is a step of which each computes a part.
"""
