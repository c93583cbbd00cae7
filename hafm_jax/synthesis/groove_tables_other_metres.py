"""Grooves in 3/4, 6/8 and 2/4, in the notation that `grooves.py` explains. All ours."""

OTHER_METRES = """
waltz_plain | waltz | 3/4 | 2 | 0.5 | 80-190 | standard brush
drums kick x.....; rim ..x.x.; hat x.x.x.
bass upright 1-----
comp piano b-x-x-
comp strings x-----
lead bowed wind

waltz_jazz | waltz | 3/4 | 2 | 0.65 | 90-190 | brush jazz
drums ride x.xxx.; foot ..x...; kick x.....
bass upright w-w-w-
comp piano x--x-.
comp mallets ..x---
lead sax wind

waltz_country | waltz | 3/4 | 2 | 0.54 | 80-150 | brush standard
drums kick x.....; snare ..o.o.; hat x.x.xx
bass finger 1----- 5-----
comp acoustic b-d-du
comp accordion x-----
lead bowed harmonica

waltz_ballad | ballad | 3/4 | 2 | 0.5 | 60-115 | standard brush
drums kick x....x; rim ....x.; hat oooooo
bass finger 1---5-
comp acoustic 132432
comp strings x-----
lead wind bowed

waltz_vals | waltz | 3/4 | 2 | 0.5 | 110-200 | brush
drums kick o.....; rim ..o.o.
bass upright 1-..5-
comp accordion ..x.x.
comp nylon D-d-d-
lead bowed

waltz_pop | pop | 3/4 | 4 | 0.5 | 60-130 | room standard
drums kick x.....x. ....; snare ....X... ....; hat x.x.x.x. x.x.
bass finger 1-----1- 5-a-
comp keys x---x--- x---
comp electric 1-3-2-4- 3-2-
lead synthlead bowed

six_ballad | ballad | 6/8 | 3 | 0.5 | 40-85 | standard room
drums kick x....x; snare ...X..; hat xxxxxx
bass finger 1--5-a
comp piano xxxxxx
comp strings x-----
lead bowed sax

six_arpeggio | ballad | 6/8 | 3 | 0.5 | 40-90 | brush standard
drums kick x.....; rim ...x..; hat x.xx.x
bass finger 1-----
comp acoustic 123432
comp pad x-----
lead wind

six_folk | folk | 6/8 | 3 | 0.5 | 60-130 | brush
drums kick x.....; rim ...x..; hat x.ox.o
bass upright 1--5--
comp acoustic D-ud-u
comp accordion x--x--
lead wind bowed

six_jig | folk | 6/8 | 3 | 0.5 | 80-140 | standard brush
drums kick x..x..; hat xoxxox
bass upright 1-.5-.
comp accordion x-xx-x
comp nylon DuuDuu
lead bowed wind

six_rock | rock | 6/8 | 6 | 0.5 | 40-80 | power room
drums kick x.........x. ; snare ......X.....; hat x.x.x.x.x.x.
bass finger 1-----1---a-
comp overdriven X-----x-----
comp organ x-----------
lead synthlead sax

two_polka | polka | 2/4 | 4 | 0.5 | 80-140 | standard
drums kick x...x...; snare ..x...x.
bass tuba 1-..5-..
comp accordion ..x...x.
comp nylon ..d...d.
lead wind horn

two_march | march | 2/4 | 4 | 0.5 | 80-130 | standard
drums kick x...x...; snare X.xxx.xx
bass tuba 1-..5-..
comp brass ..x...x.
comp piano x-x-x-x-
lead horn wind

two_tango | tango | 2/4 | 4 | 0.5 | 50-80 | brush standard
drums kick x..x..x.; snare ......oo
bass upright 1-.15-5-
comp accordion X.x.X.xx
comp piano x--xx-x-
lead bowed

two_habanera | tango | 2/4 | 4 | 0.5 | 45-80 | brush
drums kick x..xx.x.; rim ..x...x.
bass upright 1--55-8-
comp nylon 1.323.2.
comp strings x-------
lead bowed wind

two_samba | latin | 2/4 | 4 | 0.5 | 70-120 | standard
drums kick x..xx..x; rim x.x..x.x; hat xoxoxoxo
bass finger 1--55--1
comp nylon x.xx.x.x
comp keys x---x-x-
lead wind

two_country | country | 2/4 | 4 | 0.5 | 70-130 | brush standard
drums kick x...x...; snare ..x...x.; hat x.xxx.xx
bass upright 1---5---
comp banjo 13241324
comp acoustic ..d...du
lead bowed harmonica
"""
