module warren-worker

go 1.23

require (
	github.com/rabbitmq/amqp091-go v1.10.0
	golang.org/x/net v0.33.0
)

require golang.org/x/text v0.21.0 // indirect
