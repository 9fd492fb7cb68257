"""The daemon as a whole, measured on a real Synapse and on a stand-in: `python -m bench.live`.

organisation                the people, groups and spaces
stage ─► clocks, standin    a homeserver, clocks on both sides of it, and `aim run` as a process
  ├──► provisioning         everything made for the first time, beside a bare loop
  ├──► current              nothing to do, and started again
  ├──► correction           from a change to its correction, beside the requests alone
  └──► cycle                what one decision takes, part by part
report                      tables
"""
