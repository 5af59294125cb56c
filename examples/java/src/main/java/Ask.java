import static java.nio.charset.StandardCharsets.UTF_8;

import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.MessageProperties;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/** Hands URLs to Warren and prints, for each, the answer that tells how it ended. */
public final class Ask {
  private static final String AMQP_URL =
      System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672");
  private static final String TASKS = System.getenv().getOrDefault("WARREN_NAMESPACE", "warren") + ".tasks";
  private static final long TIMEOUT_S = Long.parseLong(System.getenv().getOrDefault("TIMEOUT_S", "60"));
  private static final boolean MANDATORY = true;
  private static final boolean AUTO_ACK = true;

  public static void main(String[] urls) {
    if (urls.length == 0) {
      System.err.println("usage: java Ask URL...");
      System.exit(2);
    }
    try {
      ask(urls);
    } catch (Exception error) {
      System.err.println(error.getMessage());
      System.exit(1);
    }
  }

  private static void ask(String... urls) throws Exception {
    var factory = new ConnectionFactory();
    factory.setUri(AMQP_URL);
    try (Connection connection = factory.newConnection();
        Channel channel = connection.createChannel()) {
      String replies = channel.queueDeclare().getQueue(); // named by the broker, and gone with this connection
      BlockingQueue<Delivery> answers = new LinkedBlockingQueue<>();
      channel.basicConsume(replies, AUTO_ACK, (tag, answer) -> answers.add(answer), tag -> {});
      Map<String, String> waiting = send(channel, replies, urls);
      while (!waiting.isEmpty()) {
        Delivery answer = answers.poll(TIMEOUT_S, TimeUnit.SECONDS);
        if (answer == null) {
          throw new IllegalStateException(
              "no answer within %d s for %s".formatted(TIMEOUT_S, String.join(", ", waiting.values())));
        }
        // An answer may come twice; the second is for nothing that waits.
        if (waiting.remove(answer.getProperties().getCorrelationId()) != null) {
          System.out.println(new String(answer.getBody(), UTF_8));
        }
      }
    }
  }

  /** Gives the URLs that now wait for their answer, by correlation id. */
  private static Map<String, String> send(Channel channel, String replies, String... urls) throws Exception {
    var waiting = new LinkedHashMap<String, String>();
    var isReturned = new AtomicBoolean();
    channel.addReturnListener(returned -> isReturned.set(true));
    channel.confirmSelect();
    for (String url : urls) {
      String id = UUID.randomUUID().toString();
      BasicProperties properties =
          MessageProperties.PERSISTENT_TEXT_PLAIN.builder().replyTo(replies).correlationId(id).build();
      channel.basicPublish("", TASKS, MANDATORY, properties, url.getBytes(UTF_8));
      if (!channel.waitForConfirms()) {
        throw new IllegalStateException("%s: the queue %s did not take it; is it full?".formatted(url, TASKS));
      }
      if (isReturned.get()) {
        throw new IllegalStateException(
            "%s: there is no queue %s; does Warren run on this broker, in this namespace?".formatted(url, TASKS));
      }
      waiting.put(id, url);
    }
    return waiting;
  }
}
