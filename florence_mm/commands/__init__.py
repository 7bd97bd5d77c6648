"""The command ``florence-mm``: one module per subcommand, also behind the scripts in ``tools/``.

Not here: what Python users call too, which is in ``apis``, ``engine``, ``export`` and ``protocols``.
"""
