from apa_lightning.cli.main import main

main()
