"""OpenID providers that others wrote, started on loopback to test the hub against.

One module an independent provider, all with the same small surface (`provider.Provider`);
what they do differently is data (`provider.Capabilities`), and every item of it is asserted.
"""
