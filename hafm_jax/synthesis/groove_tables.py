"""Grooves in 4/4, in the notation that `grooves.py` explains. All ours."""

FOUR_FOUR = """
ballad_piano | ballad | 4/4 | 2 | 0.5 | 50-90 | standard brush
drums kick x.......; rim ....x...; hat oooooooo
bass finger 1-----5-
comp piano x-x-x-x-
comp strings x-------
lead bowed wind

ballad_arpeggio | ballad | 4/4 | 2 | 0.5 | 50-100 | brush standard
drums kick x..x....; rim ....x..o; hat x.x.x.x.
bass finger 1---5---
comp acoustic 13243543
comp pad x-------
lead wind bowed

ballad_power | ballad | 4/4 | 4 | 0.5 | 55-90 | room power
drums kick x.....x. ..x.....; snare ....X... ....X...; hat x.x.x.x. x.x.x.x.
bass finger 1-----1- 5---1---
comp overdriven X------- --------
comp piano x---x--- x---x---
comp strings x------- x-------
lead bowed synthlead

pop_eights | pop | 4/4 | 2 | 0.5 | 90-150 | standard room
drums kick x...x...; snare ..X...X.; hat xxxxxxxx
bass finger 11111111
comp piano x-x-x-x-
comp electric ..x...x.
lead synthlead sax

pop_four_floor | dance | 4/4 | 4 | 0.5 | 100-135 | room power
drums kick x...x... x...x...; snare ....x... ....x...; open ..x...x. ..x...x.
bass synthbass ..1-..1- ..1-..8-
comp keys x--x--x- ..x--x--
comp pad x------- --------
lead synthlead

pop_sixteenths | pop | 4/4 | 4 | 0.5 | 70-110 | standard room
drums kick x.....x. x.......; snare ....X... ....X..o; hat xoxoxoxo xoxoxoxo
bass finger 1-----1- --1-5-a-
comp acoustic D---d-u- --u-d-u-
comp epiano x------- x-------
lead wind synthlead

pop_pushed | pop | 4/4 | 4 | 0.5 | 80-120 | standard room
drums kick x..x.... ..xx....; snare ....X... ....X...; hat x.x.x.x. x.x.x.x.
bass finger 1--1---- ..1-5---
comp piano x--x--x- ----x-x-
comp strings x------- --------
lead bowed synthlead

pop_strum | pop | 4/4 | 2 | 0.5 | 85-140 | standard room
drums kick x..xx...; snare ..X...X.; hat xxxxxxxx
bass finger 1--11-5-
comp acoustic D-du-udu
comp organ x-------
lead harmonica bowed

rock_straight | rock | 4/4 | 2 | 0.5 | 100-160 | power room
drums kick x...xx..; snare ..X...X.; hat XxXxXxXx
bass finger 11111115
comp overdriven Xxxxxxxx
comp electric D-d-dudu
lead synthlead

rock_backbeat | rock | 4/4 | 2 | 0.5 | 90-150 | power standard
drums kick x..x.x..; snare ..X...X.; open x.x.x.x.
bass finger 1-11-1a-
comp overdriven X--X----
comp organ x---x---
lead sax synthlead

rock_halftime | rock | 4/4 | 4 | 0.5 | 60-100 | power room
drums kick x......x ..x.....; snare ........ X.......; hat x...x... x...x...
bass finger 1-----1- ..1-----
comp overdriven X-----X- ..X-----
comp piano x---x--- x---x---
lead synthlead

rock_and_roll | rock | 4/4 | 2 | 0.55 | 130-190 | standard room
drums kick x...x...; snare ..X...X.; ride xxxxxxxx
bass upright 1-3-5-6-
comp piano xxxxxxxx
comp electric D-d-D-d-
lead sax

rock_ballad | rock | 4/4 | 2 | 0.5 | 60-100 | room standard
drums kick x....x..; snare ..x...x.; hat xxxxxxxx
bass finger 1----1-5
comp electric 13243543
comp organ x-------
lead bowed sax

punk_downs | rock | 4/4 | 2 | 0.5 | 130-200 | power
drums kick x..xx...; snare ..X...X.; crash x.......; hat ..x.x.x.
bass finger 11111111
comp overdriven dddddddd

swing_four | swing | 4/4 | 2 | 0.66 | 100-220 | jazz brush
drums ride X.XoX.Xo; foot ..X...X.; kick x.o.x.o.
bass upright w-w-w-w-
comp piano x-.xx-..
lead sax horn

swing_two_feel | swing | 4/4 | 2 | 0.65 | 90-200 | brush jazz
drums ride x.XoX.Xo; foot ..x...x.; snare ..o...o.
bass upright 1---5---
comp electric d.d.d.d.
comp mallets x---.x--
lead wind horn

swing_four_guitar | swing | 4/4 | 2 | 0.66 | 110-220 | jazz brush
drums ride x.XoX.Xo; foot ..x...x.; rim ......o.
bass upright w-w-w-w-
comp electric d-d-d-d-
comp brass .......x ........ ...x.x.. ........
lead sax horn

swing_ballad | swing | 4/4 | 2 | 0.62 | 50-100 | brush
drums snare o.o.o.o.; foot ..x...x.; ride x...x...
bass upright 1---5-a-
comp piano x---x---
lead sax horn

big_band | swing | 4/4 | 2 | 0.64 | 110-190 | jazz
drums hat X.XoX.Xo; kick x.o.x.o.; snare .......o
bass upright w-w-w-w-
comp brass x...x-.. .x......
comp electric d.d.d.d.
lead horn sax

bossa_basic | bossa | 4/4 | 2 | 0.5 | 100-170 | standard brush
drums kick x..xx..x; rim x..x..x. ..x..x..; hat oooooooo
bass upright 1--55--1
comp nylon x-x.x-.x -x.x-.x-
lead wind sax

bossa_clave | bossa | 4/4 | 2 | 0.5 | 100-170 | standard
drums kick x..xx..x; claves x..x..x. ..x.x...; hat xoxoxoxo
bass finger 1--55--5
comp keys x-.x-.x- .x-.x-..
comp nylon 1.34.342
lead wind

bossa_slow | bossa | 4/4 | 4 | 0.5 | 55-90 | brush standard
drums kick x..xx..x x..xx..x; rim x..x..x. ..x..x..; hat oooooooo oooooooo
bass upright 1--55--1 1--55--1
comp nylon b.x.x.bx .xb.x.x.
comp strings x------- --------
lead wind bowed

latin_son | latin | 4/4 | 2 | 0.5 | 140-210 | standard
drums claves x..x..x. ..x.x...; conga ..x...x.; low_conga ......xx; cowbell x.x.x.x.
bass upright 1--5--8-
comp piano x.1x.x2x .x.x.1x.
comp brass x....... ....x.x.
lead horn

latin_cha | latin | 4/4 | 2 | 0.5 | 100-140 | standard
drums cowbell x.x.x.x.; kick x.......; conga ..x...xx; hat xxxxxxxx
bass finger 1--53--5
comp piano x.xx.xx.
comp nylon D-.uD-.u
lead horn wind

latin_rumba | latin | 4/4 | 2 | 0.5 | 85-130 | standard
drums high_bongo xoxoxoxo; low_bongo ......x.; claves x..x..x.; kick x...x...
bass upright 1--5-5--
comp nylon D-.ud-ud
comp accordion x-------
lead bowed wind

folk_travis | folk | 4/4 | 2 | 0.5 | 80-150 | brush standard
drums kick o...o...; hat ..o...o.
bass upright 1---5---
comp acoustic 1425 1325
comp accordion x-------
lead harmonica wind

folk_strum | folk | 4/4 | 2 | 0.5 | 80-140 | brush standard
drums kick x...x...; rim ..x...x.; hat .o.o.o.o
bass upright 1---5---
comp acoustic D-d-D-du
comp banjo 12341234
lead bowed harmonica

country_train | country | 4/4 | 4 | 0.5 | 70-120 | brush
drums snare oxooXoox ooxoXoox; kick x...x... x...x...
bass upright 1---5--- 1---5---
comp acoustic b-..d-u- b-..d-u-
comp piano x---x--- x---x---
lead bowed harmonica

country_two_beat | country | 4/4 | 2 | 0.52 | 100-200 | standard brush
drums kick x...x...; rim ..x...x.; hat x.xxx.xx
bass finger 1---5-a-
comp acoustic ..d-..du
comp electric 1-3-2-3-
lead bowed

country_waltzing_shuffle | country | 4/4 | 2 | 0.64 | 90-150 | standard
drums kick x...x...; snare ..X...X.; hat x.xxx.xx
bass finger 1-3-5-3-
comp piano .x.x.x.x
comp acoustic D-d-D-d-
lead bowed harmonica

reggae_one_drop | reggae | 4/4 | 2 | 0.55 | 65-95 | standard room
drums kick ....x...; rim ....X...; hat xxxxxxxx
bass finger 1-.15-..
comp electric ..x...x.
comp organ x-------
lead horn sax

reggae_steppers | reggae | 4/4 | 2 | 0.52 | 65-100 | room
drums kick x.x.x.x.; rim ....X...; hat .x.x.x.x
bass finger 1-1-3-5-
comp organ .x.x.x.x
comp electric ..x...x.
lead horn

ska_upbeat | reggae | 4/4 | 2 | 0.5 | 110-180 | standard room
drums kick x...x...; snare ..X...X.; hat .x.x.x.x
bass finger w-w-w-w-
comp electric .u.u.u.u
comp piano x---x---
lead horn sax

funk_sixteen | funk | 4/4 | 4 | 0.52 | 80-115 | standard room
drums kick X.....x. ..x..x..; snare ....X..o .o..X..o; hat XoxoXoxo XoxoXoxo
bass finger 1.....8. 1..5.78.
comp electric D.u.D.uu D.u.d.uu
comp epiano x---..x- ....x--.
lead sax horn

funk_clav | funk | 4/4 | 4 | 0.54 | 85-120 | standard room
drums kick x.x....x ..x.....; snare ....X... .o..X..o; hat x.x.x.x. x.x.x.xx
bass finger 1-.1...1 5.7.8.a.
comp epiano x..x..x. .x..x.x.
comp brass ........ ......xx X------- ........
comp electric ..u...u. ..u...u.
lead horn sax

soul_motown | soul | 4/4 | 2 | 0.5 | 95-140 | standard room
drums kick x...x...; snare XXXXXXXX; hat x.x.x.x.
bass finger 1-.15-6a
comp piano x-x-x-x-
comp electric ..d...d.
lead sax horn

soul_slow | soul | 4/4 | 3 | 0.5 | 50-85 | standard brush
drums kick x....x x....x; snare ...x.. ...x..; hat xxxxxx xxxxxx
bass finger 1----1 5----a
comp organ x----- ------
comp electric 123432 123432
lead sax bowed

soul_ballad_keys | soul | 4/4 | 4 | 0.58 | 60-95 | standard room
drums kick x......x ..x.....; rim ....x... ....x...; hat x.x.x.x. x.x.x.xo
bass finger 1------1 --5---a-
comp epiano x------- ..x-x---
comp strings x------- --------
lead sax

blues_shuffle | blues | 4/4 | 3 | 0.5 | 80-140 | standard room
drums kick x..x..x..x..; snare ...X.....X..; ride x.xx.xx.xx.x
bass finger 1-.3-.5-.6-.
comp piano x-xx-xx-xx-x
comp electric d-ud-ud-ud-u
lead harmonica sax

blues_slow | blues | 4/4 | 3 | 0.5 | 45-80 | brush standard
drums kick x.....x.....; snare ...X.....X..; hat xxxxxxxxxxxx
bass finger 1--3--5--a--
comp piano xxxxxxxxxxxx
comp organ x-----------
lead sax harmonica

march_parade | march | 4/4 | 4 | 0.5 | 90-130 | standard
drums kick x...x... x...x...; snare X.xxx.x. X.xxxxxx
bass tuba 1-..5-.. 1-..5-..
comp brass ..x...x. ..x...x.
comp strings x---x--- x---x---
lead horn wind

electro_slow | dance | 4/4 | 4 | 0.5 | 70-110 | power room
drums kick x......x ..x...x.; snare ....x... ....x...; hat xxxxxxxx xxxxxxxx
bass synthbass 1--1--1- 1--1--5-
comp pad x------- --------
comp keys 1.3.2.4. 3.2.1.2.
lead synthlead
"""
