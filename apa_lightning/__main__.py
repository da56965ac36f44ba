from apa_lightning.cli.entry import main

main()
