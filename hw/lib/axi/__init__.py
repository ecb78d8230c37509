"""AXI4 master of the engine: readers and a writer, which cut requests into bursts and survive faults.

A request names bytes at any alignment; what travels are whole bus beats in place, byte lanes as on the bus.
Bursts are INCR, of full-width beats, start at multiples of a beat and end at multiples of `burst_beats`
beats or with the request, so that none crosses a 4 KiB page.

Two guards stand between a request and the port. A burst that is not inside one of the two windows (page
numbers, set from outside) is never issued. And if a memory owes something and nothing moves for `timeout`
cycles, all open requests end; what then comes late is swallowed, and counted, before anything new is issued.
A channel that was raised stays up meanwhile, as the protocol demands. Reset must reset the memory too.
"""
