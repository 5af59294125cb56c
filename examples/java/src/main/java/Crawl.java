import static java.nio.charset.StandardCharsets.UTF_8;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.RpcClient;
import com.rabbitmq.client.RpcClientParams;
import com.rabbitmq.client.UnroutableRpcRequestException;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Makes a crawl and prints what happens in it until it is over. */
public final class Crawl {
  private static final String AMQP_URL =
      System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672");
  private static final String NAMESPACE = System.getenv().getOrDefault("WARREN_NAMESPACE", "warren");
  private static final int TIMEOUT_S = Integer.parseInt(System.getenv().getOrDefault("TIMEOUT_S", "60"));
  private static final boolean AUTO_ACK = true;

  public static void main(String[] args) {
    if (args.length < 2) {
      System.err.println("usage: java Crawl SPIDER URL...");
      System.exit(2);
    }
    try {
      follow(args[0], List.of(args).subList(1, args.length));
    } catch (Exception error) {
      System.err.println(error.getMessage() != null ? error.getMessage() : error.getCause().getMessage());
      System.exit(1);
    }
  }

  private static void follow(String spider, List<String> seeds) throws Exception {
    var factory = new ConnectionFactory();
    factory.setUri(AMQP_URL);
    try (Connection connection = factory.newConnection();
        Channel channel = connection.createChannel()) {
      // Bound before there is a crawl, so that its first events wait here until its id is known.
      Map<String, Object> bound = Map.of("x-max-length", 10_000);
      String queue = channel.queueDeclare("", false, true, true, bound).getQueue();
      for (String key : List.of("crawl.*", "task.*")) channel.queueBind(queue, NAMESPACE + ".events", key);

      String id = createCrawl(channel, spider, seeds);
      System.out.println("crawl " + id);

      BlockingQueue<Delivery> messages = new LinkedBlockingQueue<>();
      channel.basicConsume(queue, AUTO_ACK, (tag, message) -> messages.add(message), tag -> {});
      for (boolean isOver = false; !isOver; ) {
        Delivery message = messages.poll(TIMEOUT_S, TimeUnit.SECONDS);
        if (message == null) throw new TimeoutException("nothing heard for %d s".formatted(TIMEOUT_S));
        isOver = tell(id, JsonParser.parseString(new String(message.getBody(), UTF_8)));
      }
    }
  }

  /** Has any master make the crawl, and gives its id. */
  private static String createCrawl(Channel channel, String spider, List<String> seeds) throws Exception {
    var call = Map.of("type", "create-crawl", "args", Map.of("spider", spider, "seeds", seeds));
    var properties =
        new BasicProperties.Builder()
            .contentType("application/json")
            // Should the call be carried out twice, this makes it one crawl all the same.
            .messageId(UUID.randomUUID().toString())
            .expiration(Integer.toString(TIMEOUT_S * 1000))
            .build();
    String masters = NAMESPACE + ".master";
    var calls =
        new RpcClient(
            new RpcClientParams()
                .channel(channel)
                .exchange("")
                .routingKey(masters)
                .replyTo(channel.queueDeclare().getQueue())
                .useMandatory()
                .timeout(TIMEOUT_S * 1000));
    try {
      byte[] body = calls.primitiveCall(properties, new Gson().toJson(call).getBytes(UTF_8));
      JsonObject answer = JsonParser.parseString(new String(body, UTF_8)).getAsJsonObject();
      if (!answer.get("ok").getAsBoolean()) {
        JsonObject error = answer.getAsJsonObject("error");
        throw new IllegalStateException(
            error.get("code").getAsString() + ": " + error.get("message").getAsString());
      }
      return answer.getAsJsonObject("result").get("id").getAsString();
    } catch (UnroutableRpcRequestException error) {
      throw new IllegalStateException(
          "there is no queue %s; does Warren run on this broker, in this namespace?".formatted(masters), error);
    } catch (TimeoutException error) {
      throw new IllegalStateException("no master answered within %d s".formatted(TIMEOUT_S), error);
    } finally {
      calls.close();
    }
  }

  /** Prints what a message, which holds one event or an array of them, tells of the crawl; says whether it is over. */
  private static boolean tell(String crawl, JsonElement told) {
    var events = new JsonArray();
    if (told.isJsonArray()) events.addAll(told.getAsJsonArray());
    else events.add(told);
    for (JsonElement element : events) {
      JsonObject event = element.getAsJsonObject();
      if (!event.has("crawl") || !event.get("crawl").getAsString().equals(crawl)) continue;
      String type = event.get("type").getAsString();
      System.out.println(type + " " + event.get("data"));
      if (type.equals("crawl.finished") || type.equals("crawl.closed")) return true;
    }
    return false;
  }
}
