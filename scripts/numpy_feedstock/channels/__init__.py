"""Channels: where packages come from, and the folders and indexes that they are put into."""
