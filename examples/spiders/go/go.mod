module demo-site

go 1.21

require warren-crawler.example/go v0.0.0

replace warren-crawler.example/go => ./warren
