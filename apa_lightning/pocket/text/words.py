"""Words that musicians write in prompts, beyond the names of what the pocket backbone can hear."""

_DESCRIPTIONS = """
    slow fast quick calm quiet loud soft gentle bright dark warm cold happy sad joyful melancholic dreamy dramatic tense
    relaxed peaceful romantic playful serious solemn majestic energetic lively upbeat mellow smooth rough heavy light deep
    high low rich thin clean dirty distorted muted sustained staccato legato expressive emotional beautiful simple complex
    minimal ambient cinematic epic mysterious haunting nostalgic vintage modern old new classical baroque traditional folk
    acoustic electric electronic live dry wet reverberant distant close major minor modal chromatic rhythmic melodic
    harmonic syncopated swinging steady free catchy groovy funky soulful aggressive powerful delicate lyrical virtuosic
"""
DESCRIPTIONS = tuple(_DESCRIPTIONS.split())
"""Words that describe any music, whoever plays it."""

_OTHERS = """
    a an the of in on at by for from with without and or but to into over under as is are this that it one two three can
    hear be being played plays play playing performed performing performance sung only no not very more less much some
    someone something like style sound sounds sounding sounded recording recorded recordings record clip clips track tracks
    audio excerpt short long sample samples featuring studio live room hall church concert stage street home quality low
    high fidelity noise noisy hiss crackle hum echo reverb delay chorus tremolo vibrato glissando trill pizzicato arpeggio
    arpeggios tremolando harmonics bowing bowed plucked strummed picked blown struck hit mallet mallets bow bows string
    strings wind woodwind brass percussion keyboard keys drum drums drummer bass guitar guitars guitarist pianist
    violinist cellist flautist organist harpist saxophone trumpet trombone horn clarinet oboe bassoon viola harmonica
    accordion banjo mandolin ukulele sitar synthesizer synth vibraphone xylophone fiddle glockenspiel bell bells choir
    voice vocal vocals singer singing orchestra orchestral ensemble quartet trio duo duet band group player musician
    musicians artist soloist solo accompaniment accompanied accompanying backing background foreground lead leading melody
    melodies tune tunes theme song songs piece pieces music musical composition improvisation improvised cover version
    arrangement instrument instruments instrumental chord chords harmony harmonies note notes scale riff riffs lick loop
    beat beats groove grooves rhythm rhythms tempo bar bars phrase phrases intro verse bridge ending introduction lullaby
    waltz march dance ballad blues swing bebop funk soul gospel ska dub punk indie grunge techno house trance rap hip hop
    heavy metal rock pop jazz reggae disco country bluegrass latin salsa samba bossa nova tango flamenco celtic
    medieval renaissance symphony sonata concerto suite prelude fugue etude nocturne movement hymn carol film video game
"""
OTHERS = tuple(_OTHERS.split())
"""Other words of prompts: instruments, styles, places, ways to play, and what holds a sentence together."""
