"""Workers: started or found, given work near what they hold, watched, and replaced.

``cluster`` opens them, ``load`` says who is there and where a piece of work belongs, ``watchdog`` starts anew who
stands still, ``preflight`` is what they are asked and sent first, ``agreement`` whether what is faster classes alike,
and ``pending`` is the work that they have been given and what comes back. It knows regions by their index alone.
"""
