"""The JSON API and CloudEvents over HTTP."""
