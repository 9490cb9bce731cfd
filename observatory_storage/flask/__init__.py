"""The store in Flask: an extension with settings, units of work, writers, commands and a blueprint.

Example::

    from flask import Flask
    from observatory_storage.flask import Observatory

    app = Flask(__name__)
    observatory = Observatory(app)
"""

from importlib.util import find_spec

from observatory_storage.errors import ConfigError

if find_spec("flask") is None:
    raise ConfigError(
        "observatory_storage.flask needs the extra: pip install 'observatory-storage[flask]'"
    )

from observatory_storage.flask.extension import Observatory, current_observatory

__all__ = ["Observatory", "current_observatory"]
