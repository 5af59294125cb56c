module warren-crawler.example/go

go 1.21
