from apa_lightning.cli import main

main()
