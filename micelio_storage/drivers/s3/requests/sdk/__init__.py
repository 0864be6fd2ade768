"""The SDK's road to the store, for all that is not a plain request, and its credentials. Imported in a thread, when
something needs it: that takes 300 ms. Nothing else imports the SDK."""
