"""A development identity service that speaks INDIGO IAM's dialect: loopback only, never production.

It exists so that the hub can be tried and tested on one machine against a real
peer: login page, consent, PKCE, refresh (rotating or not), token exchange,
userinfo, introspection, revocation, logout, and every fault of such a service
on demand. Start it with ``python -m escape_hub.demo.iam --port 8081``, or in
process with `escape_hub.demo.iam.app.make_app`.
"""
