"""The pass over the audio on a Ray cluster: warm recognisers, and a driver that gives them work.

Plain Ray actors, which outlive the run. Each works on a chunk of partitions at a time, as a run on one
machine does: it fetches and decodes the objects itself and writes the partitions' files itself. The driver,
which is the step `speech` of a run, only hands out chunks and collects what became of the partitions.

    chunks.py         which partitions make up a chunk, and what becomes of those whose actor died; no Ray
    messages.py       what driver and actors tell each other; no Ray
    fleet.py          what each actor of a run has done, for the log and the metadata; no Ray
    actor_name.py     names that keep an actor from runs of another model, setting, table or code; no Ray
    local_cluster.py  the cluster of this machine, and this machine as a node of another one's cluster
    connection.py     the connection of a run to a cluster
    actor.py          an actor: a warm recogniser that runs the pass on a chunk
    actors.py         the actors of a run: found or started, given a chunk, replaced, told to stop
    driver.py         the loop that goes over a run's partitions

Ray is imported inside `connection.py`, `actor.py`, `actors.py` and `driver.py` alone, and these are imported
only where RAY_ADDRESS is set.
"""
